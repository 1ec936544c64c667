"""What a result was measured with."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from collections.abc import Iterator


PACKAGES = ("expertplane", "torch", "numpy", "numba", "triton", "grpcio", "protobuf")


def describe() -> dict[str, Any]:
    """Returns date, cores, machine and versions."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": dict(_versions()),
    }


def _versions() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):  # Triton is not for every machine
            yield name, version(name)


def headline(result: dict[str, Any]) -> str:
    """Returns the same as one line."""
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return (
        f"{result['date']}, {result['cores']} cores, {result['machine']}, "
        f"Python {result['python']}, {versions}"
    )
