"""How many threads the solver takes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from expertplane_server.runtime import solver_entry


if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("cpu_max", "expected"),
    [
        ("max 100000", 8),
        ("400000 100000", 4),
        ("150000 100000", 1),
        ("50000 100000", 1),
        ("1600000 100000", 8),
        ("nonsense", 8),
        (None, 8),
    ],
)
def test_available_cores(
    cpu_max: str | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of eight cores the container's quota leaves some, at least one; without a quota all."""
    if cpu_max is not None:
        (tmp_path / "cpu.max").write_text(cpu_max)
    monkeypatch.setattr(solver_entry, "_CPU_MAX", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)

    assert solver_entry.available_cores() == expected
