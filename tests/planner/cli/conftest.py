"""A small load, and policies of others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from expertplane_planner import solve
from expertplane_planner.cli import problem
from tests.support.builders import README_WEIGHT


if TYPE_CHECKING:
    from pathlib import Path

    from expertplane_planner import ExpertLoad, Plan, Topology


POLICIES = """
import dataclasses
from expertplane_planner.policies.deepseek import DeepSeekPolicy

@dataclasses.dataclass(frozen=True)
class Params:
    pass

class Unlucky:
    name = "unlucky"
    params = Params()
    def place(self, request):
        raise ZeroDivisionError("no luck\\ntoday")

class Strange:
    name = "num{ranks}[red]"
    params = Params()
    def place(self, request):
        return DeepSeekPolicy().place(request)
"""


@pytest.fixture
def load(tmp_path: Path) -> Path:
    """Returns the load of DeepSeek's README example, under an empty layer of zeros."""
    path = tmp_path / "load.npz"
    np.savez(path, weight=np.array([[0] * 12, *README_WEIGHT]))
    return path


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installs the policies of another distribution."""
    metadata = tmp_path / "others-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[expertplane.policies]\n"
        "unlucky = policies_of_others:Unlucky\n"
        "num{ranks}[red] = policies_of_others:Strange\n"
    )
    (tmp_path / "policies_of_others.py").write_text(POLICIES)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture
def unlucky(installed: None) -> str:
    """Returns the name of an installed policy that raises on every problem."""
    return "unlucky"


@pytest.fixture
def strange(installed: None) -> str:
    """Returns the name of a policy that looks like a format string and like rich's markup."""
    return "num{ranks}[red]"


@pytest.fixture
def solves(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Returns a list to which the commands' solves add their number of layers as they begin."""
    begun: list[int] = []

    def tells(load: ExpertLoad, topology: Topology, **more: Any) -> Plan:
        begun.append(load.num_layers)
        return solve(load, topology, **more)

    monkeypatch.setattr(problem, "solve", tells)
    return begun
