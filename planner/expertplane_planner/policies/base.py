"""What a policy is asked, and what it must answer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from expertplane_planner.errors import InvalidInputError
from expertplane_planner.model.mode import Mode
from expertplane_planner.model.rules import EngineRules


if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from expertplane_planner.forecast import Prediction
    from expertplane_planner.model.budget import MoveBudget
    from expertplane_planner.model.load import ExpertLoad
    from expertplane_planner.model.topology import Topology


_MOST = 10_000
"""Bound of parameters that count something: they set time and memory, and come over the wire."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacementRequest:
    """Everything that a policy may look at, checked: a policy need not check it again.

    Raises:
        InvalidInputError: Fewer slots than logical experts, experts that do not divide into the
            expert groups, a mode that is still `Mode.AUTO`, a spill below 0 or in another mode
            than soft-hierarchical, a prediction for other layers, experts or another device, or a
            seed outside [0, 2^63).
    """

    load: ExpertLoad
    """Load to plan for, on the device to plan on. Layers without load are planned as well."""

    topology: Topology
    """Where the experts go. A policy is given no masked ranks: the facade leaves them out."""

    num_expert_groups: int
    """Routing groups of consecutive logical experts, 1 if there are none."""

    mode: Mode
    """Any but `Mode.AUTO`. In both hierarchical modes expert groups divide evenly over nodes."""

    seed: int
    """The only source of randomness that a policy may use."""

    spill: int = 0
    """Foreign replicas per layer that soft-hierarchical mode allows; 0 in any other mode."""

    prediction: Prediction | None = None
    """What to expect of the coming steps, where more is known than the load says by itself."""

    rules: EngineRules = field(default_factory=EngineRules)
    """What the engine accepts. Those who asked check it; a policy that can keep to it does."""

    def __post_init__(self) -> None:
        num_logical_experts = self.load.num_logical_experts
        if self.topology.num_active_slots < num_logical_experts:
            raise InvalidInputError(
                "topology.num_slots",
                "Expected a slot for every logical expert, "
                f"got {self.topology.num_active_slots} slots and {num_logical_experts} experts.",
            )
        most = self.rules.max_replicas_per_expert
        if most is not None and most * num_logical_experts < self.topology.num_active_slots:
            raise InvalidInputError(
                "rules.max_replicas_per_expert",
                f"Expected {num_logical_experts} experts of at most {most} replicas to fill "
                f"{self.topology.num_active_slots} slots, got {most * num_logical_experts}.",
            )
        if self.num_expert_groups < 1 or num_logical_experts % self.num_expert_groups:
            raise InvalidInputError(
                "num_expert_groups",
                "Expected num_logical_experts to be a multiple of num_expert_groups, "
                f"got {num_logical_experts} and {self.num_expert_groups}.",
            )
        if self.mode is Mode.AUTO:
            raise InvalidInputError("mode", "Expected a resolved mode, got 'auto'.")
        if self.spill < 0:
            raise InvalidInputError("spill", f"Expected spill of at least 0, got {self.spill}.")
        if self.spill and self.mode is not Mode.SOFT_HIERARCHICAL:
            raise InvalidInputError(
                "spill",
                f"Expected spill in {Mode.SOFT_HIERARCHICAL} mode only, "
                f"got {self.spill} in {self.mode} mode.",
            )
        load = self.load
        if self.prediction is not None and (
            self.prediction.mean.shape != load.samples.shape[1:]
            or self.prediction.device != load.samples.device
        ):
            raise InvalidInputError(
                "prediction",
                f"Expected a prediction for {load.num_layers} layers of {num_logical_experts} "
                f"experts on {load.samples.device}, got {self.prediction.num_layers} of "
                f"{self.prediction.num_logical_experts} on {self.prediction.device}.",
            )
        if not 0 <= self.seed < 2**63:
            raise InvalidInputError("seed", f"Expected seed in [0, 2^63), got {self.seed}.")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Departure:
    """Where a re-plan sets out from; all tensors without masked ranks."""

    start: Tensor
    """[num_layers, num_slots] int64: a placement, the one in force or what repair made of it."""

    origin: Tensor
    """[num_layers, num_slots] int64, what ranks hold now, -1 for nothing; moves are counted from
    here."""

    home: Tensor | None
    """[num_layers, num_logical_experts] int64, node that each expert is tied to; None in global
    mode."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Improvement:
    """One of several placements to improve: the arguments of `ImprovingPolicy.improve`."""

    request: PlacementRequest
    """What to place and where; with a prediction."""

    departure: Departure
    """Where to set out from."""

    budget: MoveBudget
    """Moved slots, at most; what repair has moved counts."""

    price: float
    """Smallest gain per moved slot, as a share of the mean rank load."""


def check_params(
    params: object, *, lowest: Mapping[str, float], highest: Mapping[str, float] | None = None
) -> None:
    """Check that parameters of a policy are numbers of their kind and in their range.

    Args:
        params: A dataclass.
        lowest: Smallest allowed value by name of the field. Where it is a whole number, the value
            must be one, of at most 10,000.
        highest: Largest allowed value by name of the field, where there is another bound.

    Raises:
        InvalidInputError: One is not; the field is `policy.params.<name>`.
    """
    for name, least in lowest.items():
        value = getattr(params, name)
        kinds = (int,) if isinstance(least, int) else (int, float)
        is_number = isinstance(value, kinds) and not isinstance(value, bool)
        is_whole = isinstance(least, int)
        most = (highest or {}).get(name, _MOST if is_whole else math.inf)
        if not is_number or not least <= value < math.inf or value > most:
            kind = "a whole number" if is_whole else "a number"
            bound = f" and at most {most}" if most < math.inf else ""
            raise InvalidInputError(
                f"policy.params.{name}",
                f"Expected {name} to be {kind} of at least {least}{bound}, got {value!r}.",
            )


@runtime_checkable
class Policy(Protocol):
    """A named planning algorithm with its parameters.

    Policies are deterministic: the same request on the same kind of device, with the same
    versions of the libraries, gives the same map. They keep nothing from one call to the next.

    What more a policy can do it says by attributes, which count as false where they are missing.
    One that is true says:
    - `weighs_ranks`: it plans for ranks of unequal capacity; to others such a topology is not
      given.
    - `plans_layers_alone`: `place` works out each layer's map from nothing but that layer's part
      of `request.load.total()` and of `request.prediction`, besides what all layers share. Such a
      policy may be given the layers of several requests as one request, whose load holds a
      single sample, their totals, and more layers than a model has. An `ImprovingPolicy` then
      always gets a prediction.
    """

    @property
    def name(self) -> str:
        """Name by which the policy is asked for and plans are labelled."""
        ...

    @property
    def params(self) -> Any:
        """Parameters: a frozen dataclass of the policy's own, recorded in every plan."""
        ...

    def place(self, request: PlacementRequest) -> Tensor:
        """Return which logical expert each slot holds. Does not mutate the request.

        Returns:
            phy2log, [num_layers, num_slots] int64, on the device of the load.
        """
        ...


@runtime_checkable
class ImprovingPolicy(Policy, Protocol):
    """A policy that can also change a placement little by little."""

    def improve(
        self, request: PlacementRequest, departure: Departure, budget: MoveBudget, *, price: float
    ) -> Tensor:
        """Return a placement within a budget that is no worse than where it set out from.

        Args:
            request: What to place and where; with a prediction.
            departure: Where to set out from.
            budget: Moved slots, at most; what repair has moved counts.
            price: Smallest gain per moved slot, as a share of the mean rank load.

        Returns:
            phy2log, [num_layers, num_slots] int64, on the device of the load.
        """
        ...

    def peaks(self, request: PlacementRequest, phy2log: Tensor) -> Tensor:
        """Return what the policy minimises in each layer, [num_layers] float64, on the host.

        Args:
            request: As for `improve`.
            phy2log: [num_layers, num_slots] int64, a placement.
        """
        ...


@runtime_checkable
class JointlyImprovingPolicy(ImprovingPolicy, Protocol):
    """An improving policy that can do so for several requests in one go."""

    def improve_all(self, cases: Sequence[Improvement]) -> list[Tensor]:
        """Return what `improve` returns for each, in their order; of any shapes and devices."""
        ...


def plans_layers_alone(policy: Policy) -> bool:
    """Return whether a policy says that it plans every layer alone, see `Policy`."""
    return bool(getattr(policy, "plans_layers_alone", False))
