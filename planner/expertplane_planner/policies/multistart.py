"""Multi-start: two greedy packings, each refined by swaps of its heaviest packs, the tighter kept.

Source: "optimized packing and replication", a change to DeepSeek EPLB found by an automated search
and handed to this project with its code; not public.

Differs from the source:
1. All layers and starts are packed and refined at once, on the device of the load.
2. A start that is already good enough does not spare the next one its work; the smaller spread
   wins all the same.
3. Ties go to the lowest index, also among equally light partners and equally good swaps.
4. Replication by incrementally updated scores gives DeepSeek's counts, and so is shared with it.
5. Soft-hierarchical mode is added; what it spills is decided by `stages.spill`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch

from expertplane_planner.stages.candidates import noisy_keys, pack_best_start
from expertplane_planner.stages.refine import refine_half_gap

from .base import check_params
from .pipeline import Pipeline


if TYPE_CHECKING:
    from torch import Tensor

    from expertplane_planner.stages.pack import Packing

    from .base import PlacementRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class MultistartParams:
    """How many packings are tried, and how hard each is worked on.

    Raises:
        InvalidInputError: A parameter is too small; the field is `policy.params.<name>`.
    """

    num_starts: int = 2
    """Packings per row, the first without noise; at least 1."""

    max_swaps: int = 30
    """Swaps that refine each packing, at most."""

    num_heaviest: int = 3
    """Heaviest packs that may give load away in a step."""

    noise: float = 0.075
    """Items are ordered by weight times a factor in [1 - noise, 1 + noise)."""

    def __post_init__(self) -> None:
        check_params(
            self, lowest={"num_starts": 1, "max_swaps": 0, "num_heaviest": 1, "noise": 0.0}
        )


@dataclass(frozen=True, slots=True)
class MultistartPolicy:
    """Plans on the sum of the samples; the packing with the smallest spread wins."""

    params: MultistartParams = field(default_factory=MultistartParams)

    @property
    def name(self) -> str:
        """Name by which the policy is asked for."""
        return "multistart"

    def place(self, request: PlacementRequest) -> Tensor:
        """Return which logical expert each slot holds.

        Returns:
            phy2log, [num_layers, num_slots] int64, on the device of the load.
        """
        params = self.params

        def pack(weight: Tensor, _: Tensor, num_packs: int) -> Packing:
            keys = noisy_keys(
                weight,
                num_candidates=params.num_starts,
                seed=request.seed,
                low=1.0 - params.noise,
                high=1.0 + params.noise,
            )
            refine = partial(
                refine_half_gap, num_steps=params.max_swaps, num_heaviest=params.num_heaviest
            )
            return pack_best_start(weight, num_packs, keys=keys, refine=refine, score=_spread)

        return Pipeline(
            pack_groups=pack,
            pack=pack,
            dtype=torch.float64,
        ).place(request)


def _spread(load: Tensor) -> Tensor:
    return load.amax(dim=1) - load.amin(dim=1)
