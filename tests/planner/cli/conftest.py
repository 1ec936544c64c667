"""A small load, and a policy that fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.support.builders import README_WEIGHT


if TYPE_CHECKING:
    from pathlib import Path


POLICIES = """
class Unlucky:
    name = "unlucky"
    params = None
    def place(self, request):
        raise ZeroDivisionError("no luck\\ntoday")
"""


@pytest.fixture
def load(tmp_path: Path) -> Path:
    """Returns the load of DeepSeek's README example, under an empty layer of zeros."""
    path = tmp_path / "load.npz"
    np.savez(path, weight=np.array([[0] * 12, *README_WEIGHT]))
    return path


@pytest.fixture
def unlucky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Returns the name of an installed policy that raises on every problem."""
    metadata = tmp_path / "unlucky-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: unlucky\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[expertplane.policies]\nunlucky = unlucky_policies:Unlucky\n"
    )
    (tmp_path / "unlucky_policies.py").write_text(POLICIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "unlucky"
