"""A policy that tells what it was shown, and traces to show it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from expertplane_planner.policies.deepseek import DeepSeekPolicy
from expertplane_planner.traces import SyntheticTrace, TraceConfig


if TYPE_CHECKING:
    from torch import Tensor

    from expertplane_planner.policies import PlacementRequest


@dataclass(frozen=True)
class Params:
    """None."""


@dataclass
class Spy:
    """Plans like `deepseek`, keeps what it was asked and what it said."""

    name: str = "spy"
    params: Params = field(default_factory=Params)
    requests: list[PlacementRequest] = field(default_factory=list)
    answers: list[Tensor] = field(default_factory=list)

    def place(self, request: PlacementRequest) -> Tensor:
        """Returns DeepSeek's plan."""
        self.requests.append(request)
        self.answers.append(DeepSeekPolicy().place(request))
        return self.answers[-1]


class Fixed(Spy):
    """Has the same answer always."""

    def __init__(self, phy2log: Tensor) -> None:
        super().__init__()
        self.phy2log = phy2log

    def place(self, request: PlacementRequest) -> Tensor:
        """Returns the answer."""
        return self.phy2log


def synthetic(
    seed: int, *, num_windows: int = 8, num_samples: int = 8, num_layers: int = 2
) -> Tensor:
    """Returns a trace of 32 experts, int32."""
    config = TraceConfig(num_layers=num_layers, num_logical_experts=32, top_k=4, num_requests=64)
    windows = SyntheticTrace(config, seed).windows(num_samples)
    stacked = np.stack([next(windows) for _ in range(num_windows)])
    return torch.from_numpy(stacked.astype(np.int32))
