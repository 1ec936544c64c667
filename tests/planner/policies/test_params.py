"""Parameters of policies are checked where they are born."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from expertplane_planner import InvalidInputError, InvalidPlacementError, solve
from expertplane_planner.policies import get_policy

from ...support import builders
from .table import ROWS


PARAMETERS = [
    (row.name, parameter.name)
    for row in ROWS
    for parameter in dataclasses.fields(row.make().params)
]


@pytest.mark.parametrize(("policy", "name"), PARAMETERS)
@pytest.mark.parametrize("value", [-1, -0.5, "2", None, True, float("nan"), float("inf")])
def test_a_bad_parameter_is_refused_by_name(policy: str, name: str, value: Any) -> None:
    """No parameter of any policy takes what is negative, infinite or no number."""
    kind = type(get_policy(policy).params)

    with pytest.raises(InvalidInputError, match=f"^Expected {name} to be a") as caught:
        kind(**{name: value})

    assert caught.value.field == f"policy.params.{name}"


def test_a_count_is_whole() -> None:
    """Half a swap is no number of swaps, and no start is too few."""
    kind = type(get_policy("restarts").params)

    with pytest.raises(InvalidInputError, match=r"max_swaps to be a whole number .* got 2.5\.$"):
        kind(max_swaps=2.5)
    with pytest.raises(
        InvalidInputError, match=r"num_starts .* at least 1 and at most 10000, got 0\.$"
    ):
        kind(num_starts=0)


@dataclasses.dataclass(frozen=True)
class Stranger:
    """A policy of somebody else's."""

    answer: Any
    params: Any = dataclasses.field(default_factory=lambda: Nothing())
    name: str = "stranger"

    def place(self, request: Any) -> Any:
        """Return whatever it was given."""
        return self.answer


@dataclasses.dataclass(frozen=True)
class Nothing:
    """No parameters."""


@pytest.mark.parametrize("answer", [None, [[0, 1]], "map"])
def test_a_policy_that_returns_no_tensor_is_found_out(answer: Any) -> None:
    """The facade says what came back instead of a map."""
    with pytest.raises(InvalidPlacementError, match=f"got a {type(answer).__name__}"):
        solve(builders.readme_load(), builders.readme_topology(), policy=Stranger(answer))


def test_parameters_that_are_no_dataclass_are_refused() -> None:
    """A plan records parameters by name, so they must have names."""
    phy2log = torch.arange(16).remainder(12).expand(2, -1)

    with pytest.raises(InvalidInputError, match="params of policy 'stranger' to be a dataclass"):
        solve(
            builders.readme_load(),
            builders.readme_topology(),
            policy=Stranger(phy2log, params={"a": 1}),
        )


@pytest.mark.parametrize(("name", "value", "most"), [("num_starts", 65, 64), ("noise", 1.5, 1.0)])
def test_starts_are_bounded(name: str, value: float, most: float) -> None:
    """They take memory side by side, and noise beyond 1 would make loads negative."""
    with pytest.raises(InvalidInputError, match=f"{name} .* at most {most}, got {value}"):
        type(get_policy("robust").params)(**{name: value})
