"""A real sidecar process: `expertplane sidecar`, found by the line that says it is ready."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
from typing import TYPE_CHECKING

from .planner_process import PROGRAM, START_TIMEOUT_S


if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@contextlib.contextmanager
def running_sidecar(
    folder: Path, address: str, deployment: str, participant_id: str, ranks: Sequence[int]
) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Runs a sidecar for the time of the block; yields it with the path of its socket."""
    path = folder / f"{participant_id}.sock"
    config = folder / f"{participant_id}.toml"
    config.write_text(
        f"""
planner = "{address}"
deployment = "{deployment}"
participant_id = "{participant_id}"
ranks = {list(ranks)}
cache = "{folder / participant_id}"
metrics = ""
health = ""
[handoff]
kind = "socket"
path = "{path}"
"""
    )
    with (folder / f"{participant_id}.log").open("a") as log:
        process = subprocess.Popen(
            [PROGRAM, "sidecar", f"--config={config}"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        guard = threading.Timer(START_TIMEOUT_S, process.kill)
        guard.start()
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            guard.cancel()
            assert "sidecar is ready" in line, line
            yield process, path
        finally:
            guard.cancel()
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.communicate()
