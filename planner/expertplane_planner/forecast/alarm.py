"""The drift alarm: a window that is further from its forecast than windows have been.

The discrepancy of a layer is the triangular discrimination sum (p - q)^2 / (p + q) between the
forecast p and the window's mean q: squared errors in units of counting noise, bounded by 2, so
that an expert thought cold cannot outshout all others (Topsoe, IEEE Trans. Inf. Theory 46(4),
2000). What counting alone would make of it is added, so that nothing below that is ever a
surprise. Its logarithm, over all layers at once because traffic shifts in all at once, is compared
with its own exponentially forgotten mean and standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch


if TYPE_CHECKING:
    from torch import Tensor

    from .params import ForecastParams
    from .shares import WindowShares


_PRIOR_SD = 0.4
"""Standard deviation of the log discrepancy until windows have shown theirs."""

_PRIOR_WINDOWS = 8.0
"""Windows that the prior counts for."""


@dataclass(frozen=True, slots=True, eq=False)
class Surprise:
    """How the latest window compared with its forecast. Tensors stay on the device."""

    per_layer: Tensor
    """[num_layers] float64, discrepancy over what has been usual; 1 where nothing is known."""

    overall: Tensor
    """[] float64, the same over all layers with load."""

    threshold: Tensor
    """[] float64, the overall surprise beyond which is an alarm; infinite while warming up."""

    is_drifting: Tensor
    """[] bool, whether there is an alarm."""


@dataclass(slots=True, eq=False)
class DriftAlarm:
    """What discrepancies have been usual; float64 unless said otherwise, on one device."""

    log_sums: Tensor
    """[3]: weighted sums of log discrepancy, of its square and of 1."""

    num_judged: Tensor
    """[] int64, windows that were compared with a forecast."""

    layer_sums: Tensor
    """[2, num_layers]: weighted sums of the discrepancy and of 1."""

    per_layer: Tensor
    """[num_layers], as in `Surprise`."""

    overall: Tensor
    """[], as in `Surprise`."""

    threshold: Tensor
    """[], as in `Surprise`."""

    is_drifting: Tensor
    """[] bool, as in `Surprise`."""

    @classmethod
    def empty(cls, num_layers: int, device: torch.device | str | None) -> DriftAlarm:
        """Return an alarm that has seen nothing."""

        def full(value: float, *shape: int) -> Tensor:
            return torch.full(shape, value, dtype=torch.float64, device=device)

        return cls(
            log_sums=full(0.0, 3),
            num_judged=torch.zeros((), dtype=torch.int64, device=device),
            layer_sums=full(0.0, 2, num_layers),
            per_layer=full(1.0, num_layers),
            overall=full(1.0),
            threshold=full(torch.inf),
            is_drifting=torch.zeros((), dtype=torch.bool, device=device),
        )

    def surprise(self) -> Surprise:
        """Return what the latest window was."""
        return Surprise(self.per_layer, self.overall, self.threshold, self.is_drifting)

    def judge(
        self, predicted: Tensor, window: WindowShares, is_judged: Tensor, params: ForecastParams
    ) -> Tensor:
        """Compare a window with its forecast, then learn from it. Mutates the alarm.

        A window beyond the threshold is learned as one at the threshold: a single switch does
        not make the next one usual, but traffic that has become unsteady does, in time.

        Args:
            predicted: [num_layers, num_logical_experts] float64, shares.
            window: What came.
            is_judged: [num_layers] bool: layers that had a forecast and have load.
            params: When to raise an alarm, and how to forget.

        Returns:
            [] float64 in (0, 1]: part of the squared error that reaches the threshold, 1 below it.
        """
        discrepancy = _discrepancy(predicted, window)
        self._compare_layers(discrepancy, is_judged, params.decay)

        num_layers = is_judged.sum()
        has_judged = num_layers > 0
        mean = torch.where(is_judged, discrepancy, 0.0).sum() / num_layers.clamp_min(1)
        log_mean = torch.where(has_judged, mean, 1.0).log()
        usual, threshold = self._usual(params)
        is_known = has_judged & (self.log_sums[2] > 0)
        log_kept = torch.minimum(log_mean, threshold)

        one = torch.ones_like(log_mean)
        self.is_drifting = has_judged & (log_mean > threshold)
        self.overall = torch.where(is_known, (log_mean - usual).exp(), one)
        self.threshold = (threshold - usual).exp()
        sums = self.log_sums * params.decay + torch.stack([log_kept, log_kept.square(), one])
        self.log_sums = torch.where(has_judged, sums, self.log_sums)
        self.num_judged = self.num_judged + has_judged.to(torch.int64)
        return torch.where(has_judged, (log_kept - log_mean).exp(), one)

    def _usual(self, params: ForecastParams) -> tuple[Tensor, Tensor]:
        """Return the mean of the log discrepancy, and the threshold of an alarm."""
        total, square, weight = self.log_sums.unbind()
        divisor = torch.where(weight > 0, weight, 1.0)
        mean = total / divisor
        spread = (square - total * mean).clamp_min(0.0)  # weight times variance
        sd = ((spread + _PRIOR_WINDOWS * _PRIOR_SD**2) / (weight + _PRIOR_WINDOWS)).sqrt()
        is_armed = self.num_judged >= params.alarm_warmup_windows
        return mean, torch.where(is_armed, mean + params.alarm_sds * sd, torch.inf)

    def _compare_layers(self, discrepancy: Tensor, is_judged: Tensor, decay: float) -> None:
        total, weight = self.layer_sums.unbind()
        is_known = is_judged & (weight > 0)
        usual = torch.where(is_known, total / torch.where(is_known, weight, 1.0), 1.0)
        self.per_layer = torch.where(is_known, discrepancy / usual, 1.0)
        new = torch.stack([discrepancy, torch.ones_like(discrepancy)])
        self.layer_sums = torch.where(is_judged, self.layer_sums * decay + new, self.layer_sums)


def _discrepancy(predicted: Tensor, window: WindowShares) -> Tensor:
    """Return [num_layers], positive where a layer has load."""
    total = predicted + window.mean
    difference = (predicted - window.mean).square() / torch.where(total > 0, total, 1.0)
    num_tokens = window.tokens * window.num_loaded
    counting = predicted.shape[1] / (2.0 * torch.where(num_tokens > 0, num_tokens, 1.0))
    return difference.sum(dim=-1) + counting
