"""Batched swap: greedy packing of all layers at once, then swaps that lower the heaviest pack.

Source: "vectorized LPT and swap", a change to DeepSeek EPLB found by an automated search and
handed to this project with its code; not public.

Differs from the source:
1. Sorting is stable and every tie goes to the lowest index.
2. Sums run over the items of a pack in a fixed order; scatter-add on CUDA has none.
3. Only the items of the heaviest pack are paired with the others, not all with all; the pairs left
   out are never allowed.
4. All rounds run even when no row has a swap left, so that the host never waits for the device.
5. The load of an expert group is summed in float64 and rounded once.
6. Soft-hierarchical mode is added; what it spills is decided by `stages.spill`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from expertplane_planner.stages.pack import Packing, pack_lpt
from expertplane_planner.stages.refine import refine_peak

from .base import check_params
from .pipeline import Pipeline


if TYPE_CHECKING:
    from torch import Tensor

    from .base import PlacementRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchedSwapParams:
    """How hard a packing is worked on.

    Raises:
        InvalidInputError: A parameter is too small; the field is `policy.params.<name>`.
    """

    max_swaps: int = 50
    """Swaps that refine each packing, at most."""

    def __post_init__(self) -> None:
        check_params(self, lowest={"max_swaps": 0})


@dataclass(frozen=True, slots=True)
class BatchedSwapPolicy:
    """Plans on the sum of the samples; swaps until the heaviest rank cannot be relieved."""

    plans_layers_alone: ClassVar[bool] = True

    params: BatchedSwapParams = field(default_factory=BatchedSwapParams)

    @property
    def name(self) -> str:
        """Name by which the policy is asked for."""
        return "batched-swap"

    def place(self, request: PlacementRequest) -> Tensor:
        """Return which logical expert each slot holds.

        Returns:
            phy2log, [num_layers, num_slots] int64, on the device of the load.
        """

        def pack(weight: Tensor, _: Tensor, num_packs: int) -> Packing:
            start = pack_lpt(weight, num_packs)
            return refine_peak(weight, start, num_packs, num_steps=self.params.max_swaps)

        return Pipeline(
            pack_groups=pack,
            pack=pack,
        ).place(request)
