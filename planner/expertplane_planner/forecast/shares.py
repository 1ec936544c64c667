"""Samples as shares: what each expert took of its layer, whatever the traffic was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch


if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class WindowShares:
    """A window of samples, each divided by its layer's total; all on one device, float64.

    Samples count alike, however many tokens they hold: what is planned for is the next step, not
    the next token. A sample in which a layer has no load is left out for that layer.
    """

    share: Tensor
    """[num_layers, num_samples, num_logical_experts], zeros where `is_loaded` is False."""

    is_loaded: Tensor
    """[num_layers, num_samples] bool."""

    num_loaded: Tensor
    """[num_layers], samples in which the layer has load."""

    mean: Tensor
    """[num_layers, num_logical_experts], mean over the loaded samples; zeros if there is none."""

    tokens: Tensor
    """[num_layers], mean tokens of a loaded sample; zero if there is none."""


def shares_of(samples: Tensor) -> WindowShares:
    """Return a window's samples as shares. Does not mutate them.

    Args:
        samples: [num_samples, num_layers, num_logical_experts], tokens, non-negative.
    """
    counts = samples.transpose(0, 1).to(torch.float64)
    total = counts.sum(dim=-1)
    is_loaded = total > 0
    share = counts / torch.where(is_loaded, total, 1.0).unsqueeze(-1)
    num_loaded = is_loaded.sum(dim=-1).to(torch.float64)
    divisor = num_loaded.clamp_min(1.0)
    return WindowShares(
        share=share,
        is_loaded=is_loaded,
        num_loaded=num_loaded,
        mean=share.sum(dim=1) / divisor.unsqueeze(-1),
        tokens=total.sum(dim=-1) / divisor,
    )
