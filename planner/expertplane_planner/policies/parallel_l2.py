"""Parallel L2: eight greedy packings side by side, refined for the least sum of squares.

Source: "parallel randomized greedy with L2 swap", a change to DeepSeek EPLB found by an automated
search and handed to this project with its code; not public.

Differs from the source:
1. Sorting is stable and every tie goes to the lowest index.
2. The noise is drawn from the request's seed, on the host, and is the same on every device.
3. Sums run over the items of a pack in a fixed order; scatter-add on CUDA has none.
4. All rounds run even when no row has a swap left, so that the host never waits for the device.
5. The load of an expert group is summed in float64 and rounded once.
6. Soft-hierarchical mode is added; what it spills is decided by `stages.spill`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from expertplane_planner.stages.candidates import noisy_keys, pack_best_start
from expertplane_planner.stages.refine import refine_squares

from .base import check_params
from .pipeline import Pipeline


if TYPE_CHECKING:
    from torch import Tensor

    from expertplane_planner.stages.pack import Packing

    from .base import PlacementRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelL2Params:
    """How many packings are tried, and how hard each is worked on.

    Raises:
        InvalidInputError: A parameter is too small; the field is `policy.params.<name>`.
    """

    num_candidates: int = 8
    """Packings per row, the first without noise; at least 1."""

    max_swaps: int = 20
    """Swaps that refine each packing, at most."""

    noise: float = 0.2
    """Items are ordered by weight times a factor in [1, 1 + noise)."""

    def __post_init__(self) -> None:
        check_params(self, lowest={"num_candidates": 1, "max_swaps": 0, "noise": 0.0})


@dataclass(frozen=True, slots=True)
class ParallelL2Policy:
    """Plans on the sum of the samples; the packing with the lowest maximum wins."""

    params: ParallelL2Params = field(default_factory=ParallelL2Params)

    @property
    def name(self) -> str:
        """Name by which the policy is asked for."""
        return "parallel-l2"

    def place(self, request: PlacementRequest) -> Tensor:
        """Return which logical expert each slot holds.

        Returns:
            phy2log, [num_layers, num_slots] int64, on the device of the load.
        """
        params = self.params

        def pack(weight: Tensor, _: Tensor, num_packs: int) -> Packing:
            keys = noisy_keys(
                weight,
                num_candidates=params.num_candidates,
                seed=request.seed,
                low=1.0,
                high=1.0 + params.noise,
            )
            refine = partial(refine_squares, num_steps=params.max_swaps)
            return pack_best_start(weight, num_packs, keys=keys, refine=refine, score=_peak)

        return Pipeline(
            pack_groups=pack,
            pack=pack,
        ).place(request)


def _peak(load: Tensor) -> Tensor:
    return load.amax(dim=1)
