"""Balanced: the fast mean path, and never two replicas of an expert on a rank when avoidable.

Source: DeepSeek EPLB's pipeline (see `pipeline`), with the swap search of `batched_swap`.

Differs from both:
1. An expert gets at most one replica per rank, or per rank of its node in hierarchical modes, and
   neither packing nor a swap puts two of them on one rank, unless the ranks have more slots than
   there are experts.
2. Arithmetic is float64 and every threshold relative to the load, so that scaling all tokens by a
   power of two changes nothing.
3. All rows run in kernels of their own, compiled on the CPU.
4. Soft-hierarchical mode is added; what it spills is decided by `stages.spill`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch

from expertplane_planner.stages.distinct import pack_distinct
from expertplane_planner.stages.fill import fill_distinct
from expertplane_planner.stages.replicate import max_copies

from .base import check_params
from .pipeline import Pipeline


if TYPE_CHECKING:
    from torch import Tensor

    from expertplane_planner.stages.pack import Packing

    from .base import PlacementRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancedParams:
    """How hard a packing is worked on.

    Raises:
        InvalidInputError: A parameter is too small; the field is `policy.params.<name>`.
    """

    max_swaps: int = 256
    """Swaps that refine each packing, at most."""

    tolerance: float = 1e-5
    """Smallest gain of a swap, as a share of the mean rank load."""

    def __post_init__(self) -> None:
        check_params(self, lowest={"max_swaps": 0, "tolerance": 0.0})


@dataclass(frozen=True, slots=True)
class BalancedPolicy:
    """Plans on the sum of the samples; as even as they allow, in milliseconds."""

    plans_layers_alone: ClassVar[bool] = True

    params: BalancedParams = field(default_factory=BalancedParams)

    @property
    def name(self) -> str:
        """Name by which the policy is asked for."""
        return "balanced"

    def place(self, request: PlacementRequest) -> Tensor:
        """Return which logical expert each slot holds.

        Returns:
            phy2log, [num_layers, num_slots] int64, on the device of the load.
        """
        most = request.rules.max_replicas_per_expert

        def fill(weight: Tensor, expert: Tensor, num_slots: int, num_packs: int) -> Tensor:
            bound = max_copies(weight.shape[1], num_slots, num_packs)
            return fill_distinct(
                weight,
                expert,
                num_slots,
                num_packs,
                max_count=bound if most is None else min(bound, most),
                max_swaps=self.params.max_swaps,
                tolerance=self.params.tolerance,
            )

        return Pipeline(
            pack_groups=self._pack, pack=self._pack, fill=fill, dtype=torch.float64
        ).place(request)

    def _pack(self, weight: Tensor, kind: Tensor, num_packs: int) -> Packing:
        params = self.params
        return pack_distinct(
            weight, kind, num_packs, max_swaps=params.max_swaps, tolerance=params.tolerance
        )
