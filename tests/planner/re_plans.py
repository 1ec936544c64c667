"""Re-plans to test with: what to place, where, and what is in force."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from hypothesis import strategies as st

from expertplane_planner import (
    EngineRules,
    ExpertLoad,
    Incumbent,
    Mode,
    MoveBudget,
    Placement,
    Plan,
    Topology,
    rank_load,
    solve,
)
from expertplane_planner.model.masking import compact, expand, has_even_nodes
from expertplane_planner.policies.base import ImprovingPolicy, PlacementRequest

from ..support import instances


if TYPE_CHECKING:
    from .policies.table import Row


@dataclass(frozen=True, kw_only=True)
class Task:
    """A re-plan: what to place, where, and what is in force."""

    load: ExpertLoad
    topology: Topology
    incumbent: Placement
    num_expert_groups: int = 1
    mode: Mode = Mode.GLOBAL
    spill: int = 0

    def solve(
        self,
        row: Row,
        budget: MoveBudget | None = None,
        *,
        rules: EngineRules | None = None,
        **incumbent: Any,
    ) -> Plan:
        """Return the plan of a policy."""
        return solve(
            self.load,
            self.topology,
            num_expert_groups=self.num_expert_groups,
            mode=self.mode,
            policy=row.make(),
            spill=self.spill,
            incumbent=Incumbent(
                placement=self.incumbent, budget=budget or MoveBudget(), **incumbent
            ),
            rules=rules,
        )

    def has_experts_for_every_slot_of_a_rank(self) -> bool:
        """Return whether the experts of a rank's node, or all, can fill it without a repeat."""
        num_nodes = self.topology.num_nodes if self.mode.is_by_node else 1
        return self.topology.slots_per_rank <= self.load.num_logical_experts // num_nodes

    def objective(self, row: Row, placement: Placement) -> torch.Tensor:
        """Return what the policy minimises in each layer."""
        policy = row.make()
        if not isinstance(policy, ImprovingPolicy):
            return rank_load(placement, self.load.total()).amax(dim=1)
        request = PlacementRequest(
            load=self.load,
            topology=compact(self.topology),
            num_expert_groups=self.num_expert_groups,
            mode=self.mode,
            spill=self.spill,
            seed=0,
        )
        return policy.peaks(request, placement.active_phy2log())


@st.composite
def tasks(draw: st.DrawFn, *, is_whole: bool = True, weighs: bool = False) -> Task:
    """Draw an instance whose placement in force was made for another load.

    Args:
        draw: How to draw.
        is_whole: Whether no rank was lost or found since.
        weighs: Whether ranks may be slow.
    """
    instance = draw(instances.instances())
    topology, num_experts = instance.topology, instance.load.num_logical_experts
    mode = instance.mode
    # The spill does not weigh ranks, and refuses unequal ones.
    weighs = weighs and mode is not Mode.SOFT_HIERARCHICAL
    if weighs and draw(st.booleans()):
        speeds = st.sampled_from([0.5, 1.0, 1.5])
        capacities = draw(
            st.lists(speeds, min_size=topology.num_ranks, max_size=topology.num_ranks)
        )
        topology = dataclasses.replace(topology, rank_capacities=tuple(capacities))
    fewest = max(-(-num_experts // topology.slots_per_rank), 1)
    masks = st.sets(st.integers(0, topology.num_ranks - 1), max_size=topology.num_ranks - fewest)
    masked = tuple(sorted(draw(masks)))
    before = masked if is_whole else tuple(sorted(draw(masks)))
    topologies = [dataclasses.replace(topology, masked_ranks=m) for m in (masked, before)]
    if any(
        not has_even_nodes(t) or instance.num_expert_groups % compact(t).num_nodes
        for t in topologies
    ):
        mode = Mode.GLOBAL
    spill = instance.spill if mode is Mode.SOFT_HIERARCHICAL else 0
    num_layers = instance.load.num_layers
    seed = draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    other = torch.randn(num_layers, num_experts, generator=generator).exp() * 1000
    # Some are as good as can be already, so that there is something to lose.
    is_good = draw(st.booleans())
    incumbent = solve(
        instance.load if is_good else ExpertLoad.from_weight(other.long()),
        topologies[1],
        num_expert_groups=instance.num_expert_groups,
        mode=mode,
        policy="robust",
        spill=spill,
    ).placement
    if mode is Mode.GLOBAL and draw(st.booleans()):
        incumbent = _shuffled(incumbent, generator)
    return Task(
        load=instance.load,
        topology=topologies[0],
        incumbent=incumbent,
        num_expert_groups=instance.num_expert_groups,
        mode=mode,
        spill=spill,
    )


def _shuffled(placement: Placement, generator: torch.Generator) -> Placement:
    """Return a placement of the same replicas anyhow, duplicates on ranks included."""
    held = placement.active_phy2log()
    order = torch.randperm(held.shape[1], generator=generator)
    full = expand(held[:, order], placement.topology)
    return Placement(full, placement.num_logical_experts, placement.topology)


budgets = st.builds(
    MoveBudget,
    slots_per_layer=st.none() | st.integers(0, 6),
    total_slots=st.none() | st.integers(0, 9),
)
