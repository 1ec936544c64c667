"""The expected shares: the recent mean, drawn towards the long-run one as far as that has paid.

Traffic is a mix that drifts and returns: the best guess lies between now and always, close to now
under quick drift, close to always where windows are few samples of steady traffic. How far is one
number for all layers, because the mix is one for all: the coefficient of a regression of what
came next on the way from recent to long-run mean, with the same forgetting as everything else.

Before that the recent mean is cleared of what the mix of all layers cannot have done (`common`),
again as far as that has paid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch


if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from .params import ForecastParams
    from .shares import WindowShares


_CLEARING_CAUTION = 1.0
"""Windows for which the regression is held against no clearing at all. That noise does not come
again is safe to believe."""

_CAUTION_WINDOWS = 5.0
"""The same for shrinkage, which few windows can be wrong about."""


@dataclass(slots=True, eq=False)
class RunningMeans:
    """Recent and long-run means per layer; all float64 on one device.

    A layer without load in a window keeps what it had.
    """

    recent_share: Tensor
    """[recent_windows, num_layers, num_logical_experts], shares summed over a window's samples;
    the latest window comes first."""

    recent_tokens: Tensor
    """[recent_windows, num_layers], tokens summed over a window's samples."""

    recent_count: Tensor
    """[recent_windows, num_layers], samples with load."""

    long_run: Tensor
    """[num_layers, num_logical_experts], weighted sum of window means."""

    weight: Tensor
    """[num_layers], sum of the weights so far; approaches 1, and 0 is a layer never seen."""

    regression: Tensor
    """[2, 3], of clearing and of shrinkage: weighted sums of what came next along the way, of the
    way squared, and of 1."""

    @classmethod
    def empty(
        cls,
        num_layers: int,
        num_logical_experts: int,
        recent_windows: int,
        device: torch.device | str | None,
    ) -> RunningMeans:
        """Return means of nothing yet."""

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        return cls(
            recent_share=zeros(recent_windows, num_layers, num_logical_experts),
            recent_tokens=zeros(recent_windows, num_layers),
            recent_count=zeros(recent_windows, num_layers),
            long_run=zeros(num_layers, num_logical_experts),
            weight=zeros(num_layers),
            regression=zeros(2, 3),
        )

    def recent(self) -> Tensor:
        """Return the mean share over recent samples, [num_layers, num_logical_experts]."""
        count = self.recent_count.sum(dim=0).clamp_min(1.0)
        return self.recent_share.sum(dim=0) / count.unsqueeze(-1)

    def tokens(self) -> Tensor:
        """Return the mean tokens of a recent sample, [num_layers]."""
        return self.recent_tokens.sum(dim=0) / self.recent_count.sum(dim=0).clamp_min(1.0)

    def mean(
        self, params: ForecastParams, is_drifting: Tensor, follow: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Return the expected shares, [num_layers, num_logical_experts]; zeros if never seen.

        Args:
            params: Whether shrinkage is given or learned.
            is_drifting: [] bool; after an alarm the long run is no guide.
            follow: Returns the part of a change of shares that the mix of all layers can make.
        """
        recent = self.recent()
        is_steady = (~is_drifting).to(torch.float64)
        clearing, shrinkage = self._learned()
        if params.shrinkage is not None:
            shrinkage = torch.full_like(shrinkage, params.shrinkage)
        clear, shrink = self._ways(recent, clearing, follow)
        moved = is_steady * (clearing * clear + shrinkage * shrink)
        mean = recent + moved
        return torch.where(is_steady * clearing > 0, _non_negative(mean, recent), mean)

    def fold(
        self,
        window: WindowShares,
        decay: float,
        is_drifting: Tensor,
        trust: Tensor,
        follow: Callable[[Tensor], Tensor],
    ) -> None:
        """Take a window in. Mutates the means.

        Args:
            window: Its shares.
            decay: What older windows' weights are multiplied with.
            is_drifting: [] bool; True makes earlier windows count as recent no longer.
            trust: [] in [0, 1], part that the window has in the regression.
            follow: As for `mean`, as it was before the window.
        """
        has_load = window.num_loaded > 0
        self._learn(window, decay, has_load, trust, follow)
        latest = (
            (window.mean * window.num_loaded.unsqueeze(-1), "recent_share"),
            (window.tokens * window.num_loaded, "recent_tokens"),
            (window.num_loaded, "recent_count"),
        )
        for value, name in latest:
            before = getattr(self, name)
            earlier = torch.where(is_drifting, 0.0, before[:-1])
            shifted = torch.cat([value.unsqueeze(0), earlier])
            took_part = has_load.view(1, -1, *(1,) * (before.dim() - 2))
            setattr(self, name, torch.where(took_part, shifted, before))
        # Not torch.where of two numbers: that is float32.
        added = (1.0 - decay) * has_load.to(torch.float64)
        kept = 1.0 - added
        self.long_run = self.long_run * kept.unsqueeze(-1) + window.mean * added.unsqueeze(-1)
        self.weight = self.weight * kept + added

    def _way(self, recent: Tensor) -> Tensor:
        """Return the way from the recent to the long-run mean; none for a layer never seen."""
        weight = torch.where(self.weight > 0, self.weight, 1.0)
        return self.long_run / weight.unsqueeze(-1) - recent

    def _ways(
        self, recent: Tensor, clearing: Tensor, follow: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the way to a recent mean without noise, and from there on to the long run."""
        way = self._way(recent)
        clear = way - follow(way)
        return clear, way - clearing * clear

    def _learned(self) -> tuple[Tensor, Tensor]:
        along, square, num_windows = self.regression.unbind(dim=1)
        slope = along / torch.where(square > 0, square, 1.0)
        clearing, shrinkage = slope.clamp(0.0, 1.0)
        of_clearing, of_shrinkage = num_windows
        return (
            clearing * of_clearing / (of_clearing + _CLEARING_CAUTION),
            shrinkage * of_shrinkage / (of_shrinkage + _CAUTION_WINDOWS),
        )

    def _learn(
        self,
        window: WindowShares,
        decay: float,
        has_load: Tensor,
        trust: Tensor,
        follow: Callable[[Tensor], Tensor],
    ) -> None:
        is_known = (has_load & (self.weight > 0)).unsqueeze(-1)
        has_known = is_known.sum().clamp_max(1).to(torch.float64)
        recent = self.recent()
        clearing, _ = self._learned()
        clear, shrink = self._ways(recent, clearing, follow)
        came = window.mean - recent
        rows = []
        for way, rest in ((clear, came), (shrink, came - clearing * clear)):
            known = torch.where(is_known, way, 0.0)
            rows.append(torch.stack([(known * rest).sum(), known.square().sum(), has_known]))
        kept = 1.0 - (1.0 - decay) * has_known
        self.regression = self.regression * kept + torch.stack(rows) * trust


def _non_negative(mean: Tensor, like: Tensor) -> Tensor:
    """Return a mean without what is below zero, each layer scaled to the sum of another."""
    positive = mean.clamp_min(0.0)
    total = positive.sum(dim=-1, keepdim=True)
    return positive * (like.sum(dim=-1, keepdim=True) / torch.where(total > 0, total, 1.0))
