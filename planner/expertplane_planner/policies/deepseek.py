"""DeepSeek's own algorithm: greedy replication and longest-processing-time packing.

Source: DeepSeek EPLB, https://github.com/deepseek-ai/EPLB, `eplb.py`, functions
`rebalance_experts` and `rebalance_experts_hierarchical`. Arithmetic follows it to the bit: loads,
quotients and pack loads are float32.

Differs from the source:
1. Sorting is stable and every tie goes to the lowest index; the source's sort leaves ties to the
   version of torch.
2. All layers are packed at once, on the device of the load, instead of one by one on the CPU.
3. The load of an expert group is summed in float64 and rounded once, so that the sum does not
   depend on the device; the source sums in float32.
4. Global mode is asked for by name instead of following from group and node counts.
5. Soft-hierarchical mode is added; what it spills is decided by `stages.spill`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from expertplane_planner.stages.pack import pack_lpt

from .pipeline import Pipeline


if TYPE_CHECKING:
    from torch import Tensor

    from .base import PlacementRequest


@dataclass(frozen=True, slots=True)
class DeepSeekParams:
    """DeepSeek's algorithm has nothing to set."""


@dataclass(frozen=True, slots=True)
class DeepSeekPolicy:
    """The baseline: plans on the sum of the samples, bit-exact with DeepSeek's EPLB."""

    plans_layers_alone: ClassVar[bool] = True

    params: DeepSeekParams = field(default_factory=DeepSeekParams)

    @property
    def name(self) -> str:
        """Name by which the policy is asked for."""
        return "deepseek"

    def place(self, request: PlacementRequest) -> Tensor:
        """Return which logical expert each slot holds.

        Returns:
            phy2log, [num_layers, num_slots] int64, on the device of the load.
        """
        return Pipeline(
            pack_groups=lambda weight, _, num_packs: pack_lpt(weight, num_packs),
            pack=lambda weight, _, num_packs: pack_lpt(weight, num_packs),
        ).place(request)
