"""Measures the planner and prints text and JSON: `make bench`, or `python -m tests.bench --help`.

Ratios are taken side by side in one run; absolute times say something about this machine only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .service import measure_service
from .solving import measure_solving


PACKAGES = ("expertplane", "torch", "numpy", "numba", "grpcio", "protobuf")


def main() -> int:
    """Runs the benchmarks and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for RESULT.txt and RESULT.json")
    parser.add_argument("--windows", type=int, default=60, help="windows of simulated load")
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }
    result["solving"] = measure_solving()
    result["service"] = measure_service(arguments.windows)
    text = as_text(result)
    sys.stdout.write(text)
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "RESULT.txt").write_text(text)
        (arguments.output / "RESULT.json").write_text(json.dumps(result, indent=2) + "\n")
    return 0


def as_text(result: dict[str, Any]) -> str:
    """Lays a result out for people."""
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    lines = [
        f"{result['date']}, {result['cores']} cores, {result['machine']}, "
        f"Python {result['python']}, {versions}",
    ]
    for group in ("solving", "service"):
        lines += ["", group]
        lines += [f"  {name:<56} {value}" for name, value in result[group].items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
