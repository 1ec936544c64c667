"""Publishes for ever and prints each version once the store has acknowledged it."""

from __future__ import annotations

import sys
from pathlib import Path

from expertplane_server.store import SqliteStore
from tests.server import builders


def main(path: str) -> None:
    """Publish until somebody kills this process."""
    store = SqliteStore(Path(path))
    store.create_deployment(builders.NAME, builders.spec(), request_id="", now_s=0.0)
    while True:
        plan = store.publish(builders.draft(), epoch=store.epoch, now_s=0.0)
        sys.stdout.write(f"{plan.version}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
