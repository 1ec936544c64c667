"""Parameters as text: each is refused by name, and nothing but values gets through."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from expertplane_planner import InvalidInputError, UnknownPolicyError, get_policy, solve

from ...support import builders
from .table import ROWS


if TYPE_CHECKING:
    from pathlib import Path


POLICIES = """
from dataclasses import dataclass, field
from expertplane_planner import Placement

@dataclass(frozen=True)
class Params:
    step: int = 1
    def __post_init__(self):
        if not isinstance(self.step, int):
            raise TypeError("no whole number")
        if self.step > 9:
            raise ValueError("too large")

@dataclass(frozen=True)
class Open:
    params: Params = field(default_factory=Params)
    name = "open"
    def place(self, request):
        load = request.load
        return Placement.initial(
            load.num_layers, load.num_logical_experts, request.topology
        ).phy2log

class Closed:
    name = "closed"
    params = Params()
    place = Open.place
"""


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a distribution that brings two policies along, one of which takes parameters."""
    metadata = tmp_path / "parameters-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: parameters\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[expertplane.policies]\n"
        "open = policies_with_parameters:Open\nclosed = policies_with_parameters:Closed\n"
    )
    (tmp_path / "policies_with_parameters.py").write_text(POLICIES)
    monkeypatch.syspath_prepend(str(tmp_path))


def _refused(name: str, parameters: dict[str, str]) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as caught:
        get_policy(name, parameters)
    return caught.value


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_every_default_can_be_said_in_text(row: Any) -> None:
    """The text of each default value gives the default policy."""
    params = dataclasses.asdict(row.make().params)
    texts = {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in params.items()
        if value is not None
    }

    assert get_policy(row.name, texts) == row.make()


def test_values_are_written_as_in_toml() -> None:
    """Numbers with underscores and exponents, and a time limit."""
    policy = get_policy(
        "robust",
        {"risk": "1.5", "max_swaps": "1_000", "tolerance": "1e-3", "time_limit_s": "0.25"},
    )

    assert dataclasses.asdict(policy.params) == {
        "risk": 1.5,
        "replication_risk": 2.5,
        "max_swaps": 1000,
        "tolerance": 1e-3,
        "num_starts": 0,
        "noise": 0.05,
        "time_limit_s": 0.25,
    }


def test_no_parameters_are_the_defaults() -> None:
    """Neither None nor an empty table changes anything."""
    assert get_policy("robust", None) == get_policy("robust", {}) == get_policy("robust")


def test_an_unknown_parameter_is_answered_with_the_known_ones() -> None:
    """The message lists what could have been set."""
    error = _refused("balanced", {"max_swap": "1"})

    assert error.field == "policy.params.max_swap"
    assert str(error) == (
        "Expected a parameter of policy 'balanced', one of max_swaps, tolerance, got 'max_swap'."
    )


@pytest.mark.parametrize("name", ["params", "name", "__class__", "__init__", "", "risk ", "RISK"])
def test_only_parameters_are_parameters(name: str) -> None:
    """What belongs to the object and not to its parameters cannot be set."""
    assert _refused("robust", {name: "1"}).field == f"policy.params.{name}"


def test_a_long_name_is_cut_in_the_answer() -> None:
    """A megabyte of name does not come back as a megabyte of message."""
    error = _refused("robust", {"x" * 2**20: "1"})

    assert len(error.field) < 100
    assert len(str(error)) < 400


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "one", "1 2", "1,", "=", "1\nrisk=2", "1\r\nrisk = 2", "1\rrisk = 2",
        "1\n[params]", "'", '"1', "0x", "1__0", "+-1", "\x00", "1\x00", "nan\n", "[", "{", "[[[[",
        "1" * 65, "9" * 2**20, "[" * 2**20,
    ],
)  # fmt: skip
def test_text_that_is_no_single_value_is_refused_by_name(text: str) -> None:
    """Neither broken TOML, nor a second line, nor a megabyte gets through."""
    error = _refused("robust", {"risk": text})

    assert error.field == "policy.params.risk"
    assert len(str(error)) < 400


@pytest.mark.parametrize(
    "text",
    [
        "nan", "-nan", "+nan", "inf", "+inf", "-inf", "1e999", "-1", "-1e-9", "true", "false",
        "'1'", '"1"', "[1]", "[]", "{}", "{a = 1}", "2026-01-01", "12:00:00",
        "2026-01-01T00:00:00Z",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("policy", "name"),
    [(row.name, field.name) for row in ROWS for field in dataclasses.fields(row.make().params)],
)
def test_a_value_of_the_wrong_kind_is_refused_by_name(policy: str, name: str, text: str) -> None:
    """No parameter of any policy is negative, infinite, a truth value, text, a list or a date."""
    error = _refused(policy, {name: text})

    assert error.field == f"policy.params.{name}"
    assert str(error).startswith(f"Expected {name} to be ")


def test_a_count_is_whole() -> None:
    """1.0 is no number of swaps."""
    assert _refused("robust", {"max_swaps": "1.0"}).field == "policy.params.max_swaps"


@pytest.mark.parametrize("text", ["1000000000000000000", "9223372036854775808", "9" * 60])
@pytest.mark.parametrize("name", ["robust", "balanced"])
def test_a_huge_count_is_refused(name: str, text: str) -> None:
    """A count beyond what a machine can hold is refused by name; the largest allowed is not."""
    assert _refused(name, {"max_swaps": text}).field == "policy.params.max_swaps"
    assert get_policy(name, {"max_swaps": "10000"}).params.max_swaps == 10_000


def test_an_unknown_policy_comes_first() -> None:
    """Parameters of nobody are not looked at."""
    with pytest.raises(UnknownPolicyError):
        get_policy("magic", {"risk": "one"})


def test_changed_parameters_are_recorded_in_the_plan() -> None:
    """What the plan was made with can be read off it."""
    plan = solve(
        builders.readme_load(),
        builders.readme_topology(),
        policy=get_policy("robust", {"risk": "0.5", "max_swaps": "3"}),
    )

    assert plan.policy_params["risk"] == 0.5
    assert plan.policy_params["max_swaps"] == 3


@pytest.mark.usefixtures("third_party")
def test_a_policy_of_somebody_else_takes_parameters() -> None:
    """If it has a field for them."""
    policy = get_policy("open", {"step": "3"})
    plan = solve(builders.readme_load(), builders.readme_topology(), policy=policy)

    assert (plan.policy, plan.policy_params) == ("open", {"step": 3})


@pytest.mark.usefixtures("third_party")
def test_a_policy_that_cannot_be_changed_has_no_parameters() -> None:
    """Its name is not one either."""
    error = _refused("closed", {"step": "3"})

    assert error.field == "policy.params.step"
    assert "one of none" in str(error)


@pytest.mark.usefixtures("third_party")
@pytest.mark.parametrize("text", ["10", "'three'"])
def test_what_a_policy_of_somebody_else_does_not_take_is_refused_by_name(text: str) -> None:
    """Whatever it raises, the caller learns which parameter was wrong."""
    assert _refused("open", {"step": text}).field == "policy.params.step"
