"""Expert load: how many tokens were routed to each logical expert."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from expertplane_planner.errors import InvalidLoadError


if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


MAX_SAMPLES = 256
MAX_LAYERS = 256
MAX_LOGICAL_EXPERTS = 4096
MAX_TOKENS = 2**53  # the last count up to which float64 holds every integer

_DTYPES = (torch.int64, torch.int32, torch.int16, torch.float64, torch.float32)


@dataclass(frozen=True, slots=True, eq=False)
class ExpertLoad:
    """Token counts per logical expert over one or more samples.

    The tensor is checked once and not copied: whoever made it must not write to it afterwards.

    Raises:
        InvalidLoadError: Wrong number of dimensions, a dimension out of its bounds (256 samples,
            256 layers, 4096 logical experts), a dtype that is none of int16, int32, int64,
            float32 and float64, or a value that is not finite, negative or above 2^53. The message
            names the first offending index.
    """

    samples: Tensor
    """[num_samples, num_layers, num_logical_experts], tokens, on any device."""

    def __post_init__(self) -> None:
        _check_shape(self.samples)
        if self.samples.dtype not in _DTYPES:
            raise InvalidLoadError(
                "load.samples",
                "Expected samples of dtype int16, int32, int64, float32 or float64, "
                f"got {self.samples.dtype}.",
            )
        _check_values(self.samples)

    @classmethod
    def from_weight(cls, weight: Tensor) -> ExpertLoad:
        """Return the load of a single aggregate.

        Args:
            weight: [num_layers, num_logical_experts], tokens; dtypes as for `samples`.

        Raises:
            InvalidLoadError: As for the class, or `weight` does not have two dimensions.
        """
        if weight.dim() != 2:
            raise InvalidLoadError(
                "load.weight",
                "Expected weight of shape [num_layers, num_logical_experts], "
                f"got {list(weight.shape)}.",
            )
        return cls(weight.unsqueeze(0))

    @classmethod
    def stacked(cls, loads: Sequence[ExpertLoad]) -> ExpertLoad:
        """Return the totals of several loads, layer after layer, as one sample.

        For loads that are planned in one go. They have been checked, so that this one is not: it
        may have more layers than a model, and the host does not wait for the device.

        Args:
            loads: At least one; of equally many logical experts, on one device.
        """
        stacked = object.__new__(cls)
        totals = torch.cat([load.total() for load in loads])
        object.__setattr__(stacked, "samples", totals.unsqueeze(0))
        return stacked

    @property
    def num_samples(self) -> int:
        """Samples of the window."""
        return self.samples.shape[0]

    @property
    def num_layers(self) -> int:
        """MoE layers."""
        return self.samples.shape[1]

    @property
    def num_logical_experts(self) -> int:
        """Logical experts per layer."""
        return self.samples.shape[2]

    def total(self) -> Tensor:
        """Return the tokens summed over the samples.

        Returns:
            [num_layers, num_logical_experts] float64, on the device of the samples.
        """
        if self.samples.is_floating_point():
            return self.samples.sum(dim=0, dtype=torch.float64)
        # 256 samples of 2^53 fit into int64: one rounding at the end, the same on every device.
        return self.samples.sum(dim=0, dtype=torch.int64).to(torch.float64)

    def to(self, device: torch.device | str) -> ExpertLoad:
        """Return the same load on another device, itself if it is there already."""
        moved = self.samples.to(device)
        return self if moved is self.samples else ExpertLoad(moved)


def _check_shape(samples: Tensor) -> None:
    if samples.dim() != 3:
        raise InvalidLoadError(
            "load.samples",
            "Expected samples of shape [num_samples, num_layers, num_logical_experts], "
            f"got {list(samples.shape)}.",
        )
    bounds = (
        ("num_samples", MAX_SAMPLES),
        ("num_layers", MAX_LAYERS),
        ("num_logical_experts", MAX_LOGICAL_EXPERTS),
    )
    for (name, bound), size in zip(bounds, samples.shape, strict=True):
        if not 1 <= size <= bound:
            raise InvalidLoadError("load.samples", f"Expected {name} in [1, {bound}], got {size}.")


def _check_values(samples: Tensor) -> None:
    # Extremes carry NaN along, so that the usual case costs one pass and no temporary.
    lowest, highest = (extreme.item() for extreme in torch.aminmax(samples))
    if lowest >= 0 and highest <= MAX_TOKENS:
        return
    counts = samples.to(torch.float64)
    not_a_count = ~(torch.isfinite(counts) & (counts >= 0))
    expectation = "Expected finite, non-negative token counts"
    if not not_a_count.any():
        not_a_count = samples > MAX_TOKENS
        expectation = f"Expected token counts of at most {MAX_TOKENS}"
    index = torch.nonzero(not_a_count)[0].tolist()
    value = samples[tuple(index)].item()
    raise InvalidLoadError("load.samples", f"{expectation}, got {value} at {index}.")
