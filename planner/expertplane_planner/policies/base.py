"""What a policy is asked, and what it must answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from expertplane_planner.errors import InvalidInputError
from expertplane_planner.model.mode import Mode


if TYPE_CHECKING:
    from torch import Tensor

    from expertplane_planner.model.load import ExpertLoad
    from expertplane_planner.model.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacementRequest:
    """Everything that a policy may look at, checked: a policy need not check it again.

    Raises:
        InvalidInputError: Fewer slots than logical experts, experts that do not divide into the
            expert groups, a mode that is still `Mode.AUTO`, a spill below 0 or in another mode
            than soft-hierarchical, or a seed outside [0, 2^63).
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
        if not 0 <= self.seed < 2**63:
            raise InvalidInputError("seed", f"Expected seed in [0, 2^63), got {self.seed}.")


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
