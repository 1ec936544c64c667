"""Interpreters of their own, to see what an import brings along."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


REPOSITORY = Path(__file__).resolve().parents[2]
_ROOTS = ("proto", "planner", "server", "client")


def run_python(code: str) -> str:
    """Returns what a fresh interpreter prints when it runs some code of the repository."""
    path = os.pathsep.join(str(REPOSITORY / root) for root in _ROOTS)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
