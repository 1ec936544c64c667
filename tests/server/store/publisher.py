"""Rolls plans out for ever and prints each version once the store has acknowledged its commit."""

from __future__ import annotations

import sys
from pathlib import Path

from expertplane_server.core.plan import PlanState
from expertplane_server.store import SqliteStore
from tests.server import builders


def main(path: str) -> None:
    """Publish until somebody kills this process."""
    store = SqliteStore(Path(path))
    store.create_deployment(builders.NAME, builders.spec(), request_id="", now_s=0.0)
    version = 0
    while True:
        version += 1
        asked = builders.request(f"r{version}")
        builders.published(store, state=PlanState.STAGING, asked=asked)
        store.commit(builders.NAME, version, epoch=store.epoch)
        sys.stdout.write(f"{version}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
