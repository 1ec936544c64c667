"""Load to forecast on: small traces, and windows that can be checked by hand."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from expertplane_planner.traces import PRESETS, SyntheticTrace


if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor


class SwitchingTrace(SyntheticTrace):
    """A synthetic trace whose traffic can be turned over."""

    def switch(self) -> None:
        """Let most traffic come from the domain that least of it came from."""
        rarest = np.argmin(self._mix_logits)
        self._mix_logits = np.where(np.arange(self.config.num_domains) == rarest, 3.0, 0.0)

    def expected_shares(self) -> npt.NDArray[np.float64]:
        """Return the shares that the mix in force stands for, before jitter and requests."""
        weight = np.exp(self._mix_logits)
        expected: npt.NDArray[np.float64] = np.tensordot(
            weight / weight.sum(), self.profiles, axes=1
        )
        return expected


def small_trace(seed: int, **changes: Any) -> SwitchingTrace:
    """Return 4 layers of 32 experts, GLM-like, 64 requests and 8 samples a mix step."""
    settings: dict[str, Any] = {
        "num_layers": 4,
        "num_logical_experts": 32,
        "top_k": 4,
        "num_requests": 64,
    }
    config = dataclasses.replace(
        PRESETS["glm52"], **(settings | {"samples_per_mix_step": 8} | changes)
    )
    return SwitchingTrace(config, seed)


def windows(trace: SyntheticTrace, num_windows: int, num_samples: int = 8) -> list[Tensor]:
    """Return the next windows of a trace."""
    stream = trace.windows(num_samples)
    return [torch.from_numpy(next(stream)) for _ in range(num_windows)]


def shares(window: Tensor) -> npt.NDArray[np.float64]:
    """Return [num_samples, num_layers, num_logical_experts] of a window with load everywhere."""
    counts = window.numpy().astype(np.float64)
    share: npt.NDArray[np.float64] = counts / counts.sum(axis=-1, keepdims=True)
    return share
