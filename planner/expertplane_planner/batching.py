"""Several solves in one go: what they ask of a policy at the same time is asked once.

A solve is a flow: a generator that yields what it asks of a policy and is sent the answer. All
flows are stepped until each waits for an answer; what goes together is answered together, and on
they go. Planning a layer is little work, and a device has room for many.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from .errors import InvalidPlacementError, PlannerError
from .forecast import FactoredCovariance, Prediction
from .model.load import ExpertLoad
from .policies.base import ImprovingPolicy, JointlyImprovingPolicy, plans_layers_alone


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from .policies.base import Improvement, PlacementRequest, Policy


_MAX_BYTES = 2 * 2**30
"""Of what requests take side by side, see `_num_bytes`; more than that is answered in parts."""


class Ask(Protocol):
    """A question to a policy, of one kind."""

    def alone(self) -> Tensor:
        """Return the answer."""
        ...

    def goes_with(self, other: Self) -> bool:
        """Return whether this and another may be answered together."""
        ...

    @classmethod
    def together(cls, asks: Sequence[Self]) -> Sequence[Tensor]:
        """Return the answers to what goes together.

        Raises:
            InvalidPlacementError: There are more or fewer of them.
        """
        ...

    def num_bytes(self) -> int:
        """Return what this takes beside others."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Placing:
    """Asks for a plan from scratch."""

    policy: Policy
    """Who plans."""

    request: PlacementRequest
    """What to place and where."""

    def alone(self) -> Tensor:
        """Return the answer."""
        return self.policy.place(self.request)

    def goes_with(self, other: Self) -> bool:
        """Return whether the layers of both can be planned as those of one request."""
        kind = _kind(self.request)
        return (
            plans_layers_alone(self.policy)
            and _is_same(self.policy, other.policy)
            and kind is not None
            and kind == _kind(other.request)
        )

    @classmethod
    def together(cls, asks: Sequence[Self]) -> Sequence[Tensor]:
        """Return the answers to what goes together: the layers of one request."""
        policy, requests = asks[0].policy, [ask.request for ask in asks]
        predictions = [each.prediction for each in requests if each.prediction is not None]
        stacked = dataclasses.replace(
            requests[0],
            load=ExpertLoad.stacked([each.load for each in requests]),
            prediction=Prediction.stacked(predictions) if predictions else None,
        )
        phy2log: object = policy.place(stacked)
        num_layers = [each.load.num_layers for each in requests]
        if not isinstance(phy2log, Tensor) or phy2log.shape[:1] != (sum(num_layers),):
            raise _broken_promise(policy, f"a map of {sum(num_layers)} layers")
        return torch.split(phy2log, num_layers)

    def num_bytes(self) -> int:
        """Return what this takes beside others."""
        return _num_bytes(self.request)


@dataclass(frozen=True, slots=True, eq=False)
class Improving:
    """Asks for a placement that is better than the one in force."""

    policy: ImprovingPolicy
    """Who plans."""

    case: Improvement
    """What to improve."""

    def alone(self) -> Tensor:
        """Return the answer."""
        case = self.case
        return self.policy.improve(case.request, case.departure, case.budget, price=case.price)

    def goes_with(self, other: Self) -> bool:
        """Return whether the policy is asked both at once; of any shape, that is its affair."""
        return isinstance(self.policy, JointlyImprovingPolicy) and _is_same(
            self.policy, other.policy
        )

    @classmethod
    def together(cls, asks: Sequence[Self]) -> Sequence[Tensor]:
        """Return the answers to what goes together."""
        policy = asks[0].policy
        assert isinstance(policy, JointlyImprovingPolicy)
        improved = policy.improve_all([ask.case for ask in asks])
        if len(improved) != len(asks):
            raise _broken_promise(policy, f"{len(asks)} placements")
        return improved

    def num_bytes(self) -> int:
        """Return what this takes beside others."""
        return _num_bytes(self.case.request)


T = TypeVar("T")
A = TypeVar("A", bound=Ask)

Flow: TypeAlias = Generator[Placing | Improving, Tensor, T]
"""Yields what it asks of a policy, receives the answers, returns the result."""


def run_together(flows: Sequence[Flow[T]]) -> list[T | PlannerError]:
    """Return the results of all flows, each as if it had run alone.

    What a flow raises of the planner's own errors is its result, and hurts no other; anything
    else is raised.

    Args:
        flows: Not started yet.
    """
    improving: dict[int, Improving] = {}
    placing: dict[int, Placing] = {}
    results: dict[int, T | PlannerError] = {}

    def go_on(number: int, step: Callable[[], Placing | Improving]) -> None:
        try:
            ask = step()
        except StopIteration as end:
            results[number] = end.value
        except PlannerError as error:
            results[number] = error
        else:
            if isinstance(ask, Improving):
                improving[number] = ask
            else:
                placing[number] = ask

    for number, flow in enumerate(flows):
        go_on(number, partial(next, flow))
    while improving or placing:
        # Who improves may want a plan from scratch next, which then goes with those of others.
        answers = dict(_answers(improving) if improving else _answers(placing))
        (improving if improving else placing).clear()
        for number, answer in answers.items():
            if isinstance(answer, PlannerError):
                go_on(number, partial(flows[number].throw, answer))
            else:
                go_on(number, partial(flows[number].send, answer))
    return [results[number] for number in range(len(flows))]


def _answers(asks: dict[int, A]) -> Iterator[tuple[int, Tensor | PlannerError]]:
    """Yield the number and the answer of each; what goes together is answered together."""
    groups: list[dict[int, A]] = []
    for number, ask in asks.items():
        for group in groups:
            if next(iter(group.values())).goes_with(ask):
                group[number] = ask
                break
        else:
            groups.append({number: ask})
    for group in groups:
        for part in _parts(group):
            yield from zip(part, _answered(list(part.values())), strict=True)


def _parts(group: dict[int, A]) -> Iterator[dict[int, A]]:
    """Yield as much of a group at a time as memory is set aside for, one at least."""
    part: dict[int, A] = {}
    num_bytes = 0
    for number, ask in group.items():
        if part and num_bytes + ask.num_bytes() > _MAX_BYTES:
            yield part
            part, num_bytes = {}, 0
        part[number] = ask
        num_bytes += ask.num_bytes()
    yield part


def _answered(asks: list[A]) -> list[Tensor | PlannerError]:
    """Return the answers to what goes together."""
    if len(asks) > 1:
        # An error here is that of one of them, and met again by it alone.
        with contextlib.suppress(PlannerError):
            return [*asks[0].together(asks)]
    return [_answered_alone(ask) for ask in asks]


def _answered_alone(ask: Ask) -> Tensor | PlannerError:
    try:
        return ask.alone()
    except PlannerError as error:
        return error


def _broken_promise(policy: Policy, expected: str) -> InvalidPlacementError:
    return InvalidPlacementError(
        "placement.phy2log", f"Expected {expected} of policy '{policy.name}', got others."
    )


def _is_same(one: Policy, other: Policy) -> bool:
    return one is other or (type(one) is type(other) and one == other)


def _kind(request: PlacementRequest) -> tuple[object, ...] | None:
    """Return what requests must have in common for their layers to be planned as one's.

    None is for one that is planned alone: its covariance is factored, as only large ones are.
    """
    covariance = None if request.prediction is None else request.prediction.covariance
    if isinstance(covariance, FactoredCovariance):
        return None
    return (
        request.topology,
        request.mode,
        request.num_expert_groups,
        request.spill,
        request.rules,
        request.seed,
        request.load.num_logical_experts,
        request.load.samples.device,
        None if covariance is None else covariance.dtype,
    )


def _num_bytes(request: PlacementRequest) -> int:
    """Return the bytes of a request's covariance, and of a search over pairs of slots."""
    load, topology = request.load, request.topology
    covariance = None if request.prediction is None else request.prediction.covariance
    num_bytes = covariance.nbytes if isinstance(covariance, Tensor) else 0
    return num_bytes + 8 * load.num_layers * topology.num_slots * topology.slots_per_rank
