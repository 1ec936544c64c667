"""The `expertplane` program. Without the packages of the command line it says how to get them."""

from __future__ import annotations

import importlib.util
import signal
import sys


def main() -> int:
    """Runs the program and returns its exit code; 2 when click or rich is not installed."""
    if any(importlib.util.find_spec(name) is None for name in ("click", "rich")):
        sys.stderr.write("The command line needs more packages: pip install 'expertplane[cli]'\n")
        return 2
    from .commands import program

    # As the first process of a container nothing would end it otherwise.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))

    # click ends the process itself, with the exit code of the command.
    program(prog_name="expertplane", auto_envvar_prefix="EXPERTPLANE")
    return 0
