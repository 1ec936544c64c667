"""Hybrid: two apportionment rules for replicas, and a few aimed swaps after packing.

Source: "refine packing and hybrid replication", a change to DeepSeek EPLB found by an automated
search and handed to this project with its code; not public.

Differs from the source:
1. All layers are packed and refined at once, on the device of the load.
2. Sorting is stable and every tie goes to the lowest index.
3. Of the swaps between heaviest and lightest pack all are looked at; the source looks at the two
   light items nearest to the aim of each heavy one, of which the best is always one.
4. Sums run over the items of a pack in a fixed order; the load of an expert group is summed in
   float64 and rounded once.
5. Soft-hierarchical mode is added; what it spills is decided by `stages.spill`, which also takes
   the place of this policy's replication.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from expertplane_planner.stages.pack import Packing, pack_lpt
from expertplane_planner.stages.refine import refine_gap
from expertplane_planner.stages.replicate import replicate_hybrid

from .base import check_params
from .pipeline import Pipeline


if TYPE_CHECKING:
    from torch import Tensor

    from .base import PlacementRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class HybridParams:
    """How many swaps follow each packing.

    Raises:
        InvalidInputError: A parameter is too small; the field is `policy.params.<name>`.
    """

    max_group_swaps: int = 1
    """Swaps of expert groups between nodes, at most."""

    max_replica_swaps: int = 2
    """Swaps of replicas between ranks, at most."""

    def __post_init__(self) -> None:
        check_params(self, lowest={"max_group_swaps": 0, "max_replica_swaps": 0})


@dataclass(frozen=True, slots=True)
class HybridPolicy:
    """Plans on the sum of the samples; close to DeepSeek's in cost, a little better in balance."""

    plans_layers_alone: ClassVar[bool] = True

    params: HybridParams = field(default_factory=HybridParams)

    @property
    def name(self) -> str:
        """Name by which the policy is asked for."""
        return "hybrid"

    def place(self, request: PlacementRequest) -> Tensor:
        """Return which logical expert each slot holds.

        Returns:
            phy2log, [num_layers, num_slots] int64, on the device of the load.
        """

        def pack_groups(weight: Tensor, _: Tensor, num_packs: int) -> Packing:
            return _pack(weight, num_packs, self.params.max_group_swaps)

        def pack(weight: Tensor, _: Tensor, num_packs: int) -> Packing:
            return _pack(weight, num_packs, self.params.max_replica_swaps)

        return Pipeline(
            pack_groups=pack_groups,
            replicate=lambda weight, num_replicas, _: replicate_hybrid(weight, num_replicas),
            pack=pack,
        ).place(request)


def _pack(weight: Tensor, num_packs: int, max_swaps: int) -> Packing:
    return refine_gap(weight, pack_lpt(weight, num_packs), num_packs, num_steps=max_swaps)
