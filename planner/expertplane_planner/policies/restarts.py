"""Restarts: several greedy packings under noise, each refined by swaps, the evenest one kept.

Source: "randomized restarts and optimized replication", a change to DeepSeek EPLB found by an
automated search and handed to this project with its code; not public. Here the description is
followed, since part of the code is missing.

Differs from the source:
1. All layers and starts are packed and refined at once, in float64, on the device of the load.
2. The first start is without noise, so that the variance is never larger than that of greedy
   packing alone; the noise on the others, whose width the description leaves open, is 0.9 .. 1.1,
   and acts on the order of the items only.
3. Ties go to the lowest index, also among equally light partners; where the heaviest pack finds no
   partner, a row is done.
4. Soft-hierarchical mode is added; what it spills is decided by `stages.spill`.
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
class RestartsParams:
    """How many packings are tried, and how hard each is worked on.

    Raises:
        InvalidInputError: A parameter is too small; the field is `policy.params.<name>`.
    """

    num_starts: int = 5
    """Packings per row, the first without noise; at least 1."""

    max_swaps: int = 100
    """Swaps that refine each packing, at most."""

    noise: float = 0.1
    """Items are ordered by weight times a factor in [1 - noise, 1 + noise)."""

    def __post_init__(self) -> None:
        check_params(self, lowest={"num_starts": 1, "max_swaps": 0, "noise": 0.0})


@dataclass(frozen=True, slots=True)
class RestartsPolicy:
    """Plans on the sum of the samples; the evenest of several noisy packings wins."""

    params: RestartsParams = field(default_factory=RestartsParams)

    @property
    def name(self) -> str:
        """Name by which the policy is asked for."""
        return "restarts"

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
            refine = partial(refine_half_gap, num_steps=params.max_swaps, num_heaviest=1)
            return pack_best_start(weight, num_packs, keys=keys, refine=refine, score=_variance)

        return Pipeline(
            pack_groups=pack,
            pack=pack,
            dtype=torch.float64,
        ).place(request)


def _variance(load: Tensor) -> Tensor:
    return load.var(dim=1, correction=0)
