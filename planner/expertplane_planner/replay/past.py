"""What may be known before a window begins. It holds no reference to what comes later."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from expertplane_planner.forecast import (
    FactoredCovariance,
    Forecast,
    ForecastParams,
    Prediction,
)
from expertplane_planner.forecast.shares import shares_of
from expertplane_planner.model.load import ExpertLoad


if TYPE_CHECKING:
    from torch import Tensor


_MAX_RECENT = 16  # what a forecast takes


@dataclass(frozen=True, slots=True, eq=False)
class Knowledge:
    """What plans are made of."""

    load: ExpertLoad
    """The last steps, as many as a window has."""

    prediction: Prediction
    """What to expect of the next."""


class Past:
    """The steps so far, taken in block by block.

    A block is what lies between two re-plans: a window, or an equal part of one. The forecast
    takes a block for its window, so that it learns how wrong it is over the time for which plans
    are made; its recent mean is over as many blocks as make a window (16 at most), and it forgets
    as quickly as it would with whole windows.

    Args:
        blocks_per_window: Blocks that make a window.
    """

    def __init__(self, blocks_per_window: int) -> None:
        self._recent: deque[Tensor] = deque(maxlen=blocks_per_window)
        usual = ForecastParams()
        self._params = ForecastParams(
            recent_windows=min(blocks_per_window * usual.recent_windows, _MAX_RECENT),
            half_life_windows=blocks_per_window * usual.half_life_windows,
        )
        self._forecast: Forecast | None = None

    def observe(self, block: Tensor) -> None:
        """Take in what has just happened.

        Args:
            block: [num_samples, num_layers, num_logical_experts], tokens.
        """
        if self._forecast is None:
            self._forecast = Forecast(*block.shape[1:], params=self._params, device=block.device)
        self._forecast.observe(block)
        self._recent.append(block)

    def knowledge(self) -> Knowledge:
        """Return what is known now; something must have been observed."""
        assert self._forecast is not None
        return Knowledge(ExpertLoad(torch.cat([*self._recent])), self._forecast.predict())


def foreknowledge(window: Tensor) -> Knowledge:
    """Return what an oracle knows: a window's own samples, with their mean and covariance.

    Nothing is added for what the samples may not show, unlike in `Prediction.of_window`: what is
    to come is known.

    Args:
        window: [num_samples, num_layers, num_logical_experts], tokens.
    """
    shares = shares_of(window)
    centred = torch.where(
        shares.is_loaded.unsqueeze(-1), shares.share - shares.mean.unsqueeze(1), 0.0
    )
    factor = centred.mT / shares.num_loaded.clamp_min(1.0).sqrt().view(-1, 1, 1)
    factor = factor.to(torch.float32).contiguous()
    covariance = FactoredCovariance(factor, torch.zeros_like(factor[..., 0]))
    return Knowledge(ExpertLoad(window), Prediction(shares.mean, covariance, shares.tokens))
