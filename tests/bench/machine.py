"""What a result was measured with."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import version
from typing import Any


PACKAGES = ("expertplane", "torch", "numpy", "numba", "grpcio", "protobuf")


def describe() -> dict[str, Any]:
    """Returns date, cores, machine and versions."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def headline(result: dict[str, Any]) -> str:
    """Returns the same as one line."""
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return (
        f"{result['date']}, {result['cores']} cores, {result['machine']}, "
        f"Python {result['python']}, {versions}"
    )
