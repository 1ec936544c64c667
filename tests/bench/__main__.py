"""Measures the planner and prints text and JSON: `make bench`, or `python -m tests.bench --help`.

Ratios are taken side by side in one run; absolute times say something about this machine only.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from . import device, fleet, foresight, growth
from .machine import describe, headline
from .service import measure_service
from .solving import measure_solving


PARTS = ("solving", "service", "fleet", "growth", "foresight", "starts", "device")


def main() -> int:
    """Runs the benchmarks and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for text, JSON and pictures")
    parser.add_argument("--part", action="append", choices=PARTS, help="by default all")
    parser.add_argument("--windows", type=int, default=60, help="windows of simulated load")
    arguments = parser.parse_args()
    parts = tuple(arguments.part or PARTS)
    result = describe()
    if "solving" in parts:
        result["solving"] = measure_solving()
    if "service" in parts:
        result["service"] = measure_service(arguments.windows)
    if "solving" in parts or "service" in parts:
        text = as_text(result)
        sys.stdout.write(text)
        if arguments.output is not None:
            arguments.output.mkdir(parents=True, exist_ok=True)
            (arguments.output / "RESULT.txt").write_text(text)
            (arguments.output / "RESULT.json").write_text(json.dumps(result, indent=2) + "\n")
    if "fleet" in parts:
        fleet.run(arguments.output)
    if "growth" in parts:
        growth.run(arguments.output)
    if "foresight" in parts:
        foresight.run(arguments.output)
    if "starts" in parts:
        foresight.run(arguments.output, ("starts",), file="STARTS")
    if "device" in parts:
        device.run(arguments.output)
    return 0


def as_text(result: dict[str, Any]) -> str:
    """Lays a result out for people."""
    lines = [headline(result)]
    for group in ("solving", "service"):
        if group in result:
            lines += ["", group]
            lines += [f"  {name:<56} {value}" for name, value in result[group].items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
