from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from expertplane_planner import UnknownPolicyError, get_policy, policy_names, solve
from expertplane_planner.policies import Policy

from ...support import builders
from .table import ROWS, Row


if TYPE_CHECKING:
    from pathlib import Path


POLICIES = """
from dataclasses import dataclass
from expertplane_planner import Placement

@dataclass(frozen=True)
class Params:
    step: int = 1

class RoundRobin:
    name = "round-robin"
    params = Params()
    def place(self, request):
        load = request.load
        return Placement.initial(
            load.num_layers, load.num_logical_experts, request.topology
        ).phy2log

class ALayerShort(RoundRobin):
    name = "a-layer-short"
    def place(self, request):
        return super().place(request)[:-1]
"""

ENTRY_POINTS = """
[expertplane.policies]
deepseek = third_party_policies:RoundRobin
no-such-module = third_party_nowhere:RoundRobin
not-a-policy = builtins:dict
a-layer-short = third_party_policies:ALayerShort
by-another-name = third_party_policies:RoundRobin
round-robin = third_party_policies:RoundRobin
"""


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a distribution that brings policies along, good and bad ones."""
    metadata = tmp_path / "third_party-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    (tmp_path / "third_party_policies.py").write_text(POLICIES)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_policies_are_built_in(row: Row) -> None:
    """They are there without any other distribution, each under its own name, plain when made."""
    policy = get_policy(row.name)

    assert policy.name == row.name
    assert isinstance(policy, Policy)
    assert policy == row.make()


def test_the_baseline_comes_first() -> None:
    """Names are listed with 'deepseek' in front."""
    assert policy_names()[0] == "deepseek"


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    """The message lists what could have been asked for."""
    with pytest.raises(UnknownPolicyError) as caught:
        get_policy("magic")

    assert str(caught.value) == (
        f"Expected policy to be one of {', '.join(policy_names())}, got 'magic'."
    )
    assert caught.value.field == "policy"


@pytest.mark.usefixtures("third_party")
def test_an_installed_policy_is_found_by_name() -> None:
    """A policy of another distribution solves, and its parameters go into the plan."""
    plan = solve(builders.readme_load(), builders.readme_topology(), policy="round-robin")

    assert plan.placement.phy2log[0].tolist() == [*range(12), 0, 1, 2, 3]
    assert (plan.policy, plan.policy_params) == ("round-robin", {"step": 1})


@pytest.mark.usefixtures("third_party")
def test_names_are_listed_without_importing_anything() -> None:
    """Broken policies are listed too: names come from metadata, built-in ones first and once."""
    installed = (
        "a-layer-short",
        "by-another-name",
        "no-such-module",
        "not-a-policy",
        "round-robin",
    )

    assert policy_names() == (*(row.name for row in ROWS), *installed)


@pytest.mark.usefixtures("third_party")
def test_a_built_in_name_cannot_be_taken_over() -> None:
    """Somebody else's 'deepseek' is not the one that answers."""
    assert type(get_policy("deepseek")).__name__ == "DeepSeekPolicy"


@pytest.mark.usefixtures("third_party")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no-such-module", "to load from third_party_nowhere:RoundRobin, got ModuleNotFoundError"),
        ("not-a-policy", "to have name, params and place, got a dict"),
        ("by-another-name", "'by-another-name' to have its name, got 'round-robin'"),
    ],
)
def test_a_broken_policy_breaks_only_itself(name: str, message: str) -> None:
    """A policy that does not load is refused with the reason, and the built-in one still works."""
    with pytest.raises(UnknownPolicyError, match=message):
        get_policy(name)

    assert get_policy("deepseek").name == "deepseek"


@pytest.mark.usefixtures("third_party")
def test_a_policy_that_forgets_a_layer_is_found_out() -> None:
    """The facade verifies what a policy returns."""
    with pytest.raises(ValueError, match=r"Expected phy2log of 2 layers, got 1\.$"):
        solve(builders.readme_load(), builders.readme_topology(), policy="a-layer-short")
