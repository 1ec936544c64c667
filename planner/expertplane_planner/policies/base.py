"""What a policy is asked, and what it must answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from expertplane_planner.errors import InvalidInputError
from expertplane_planner.model.mode import Mode


if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from expertplane_planner.forecast import Prediction
    from expertplane_planner.model.load import ExpertLoad
    from expertplane_planner.model.topology import Topology


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
    """Where the experts go."""

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

    def __post_init__(self) -> None:
        num_logical_experts = self.load.num_logical_experts
        if self.topology.num_slots < num_logical_experts:
            raise InvalidInputError(
                "topology.num_slots",
                "Expected a slot for every logical expert, "
                f"got {self.topology.num_slots} slots and {num_logical_experts} experts.",
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


def check_params(params: object, *, lowest: Mapping[str, float]) -> None:
    """Check that parameters of a policy are numbers of their kind and not too small.

    Args:
        params: A dataclass; fields that are declared with type int must hold whole numbers.
        lowest: Smallest allowed value by name of the field.

    Raises:
        InvalidInputError: One is not; the field is `policy.params.<name>`.
    """
    for name, least in lowest.items():
        value = getattr(params, name)
        kinds = (int,) if isinstance(least, int) else (int, float)
        is_number = isinstance(value, kinds) and not isinstance(value, bool)
        if not is_number or not least <= value < math.inf:
            kind = "a whole number" if isinstance(least, int) else "a number"
            raise InvalidInputError(
                f"policy.params.{name}",
                f"Expected {name} to be {kind} of at least {least}, got {value!r}.",
            )


@runtime_checkable
class Policy(Protocol):
    """A named planning algorithm with its parameters.

    Policies are deterministic: the same request on the same kind of device, with the same
    versions of the libraries, gives the same map. They keep nothing from one call to the next.
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
