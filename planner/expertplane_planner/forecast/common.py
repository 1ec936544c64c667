"""What all layers have in common: the traffic mix that they all serve.

When traffic shifts, every layer shifts at once, though each in experts of its own. So the errors
of a step, put end to end over all layers, lie near a few directions, and these can be told from
noise by thousands of values at once, where one layer alone has hundreds. Two factors hold them,
each of the strongest directions of what it has been shown:

- errors: of steps around what was forecast, forgotten like everything else;
- swings: of steps around the mean of their own window, forgotten `_HASTE` times as quickly. There
  is one error of a window's mean a window, but many swings, so that few windows show which way
  the mix of today varies. How far is left to the errors.

Noise of single experts is no direction: it is left to the diagonal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .covariance import FactoredCovariance, strongest


if TYPE_CHECKING:
    from torch import Tensor

    from .shares import WindowShares


_HASTE = 12.0
"""Swings of 8 windows matter where errors of 100 do; 4 to 16 windows are as good."""

_SWINGS_PART = 0.5
"""Part of the covariance's directions that swings have."""

_COMMON_PART = 0.7
"""Part of the covariance that is common. The rest is each layer's own, for what layers do not
share; on mixes of domains nothing between half and all of it makes a difference."""

_RIDGE = 1e-6
"""Of the mean strength of a direction: what is weaker is rounding, also without noise."""


@dataclass(slots=True, eq=False)
class CommonFactors:
    """Directions of errors and swings over all layers at once; float32, on one device."""

    errors: Tensor
    """[num_layers, num_logical_experts, rank]; the rank may be 0, for none."""

    swings: Tensor
    """[num_layers, num_logical_experts, rank]."""

    @classmethod
    def empty(
        cls,
        num_layers: int,
        num_logical_experts: int,
        *,
        max_bytes: int,
        max_rank: int,
        device: torch.device | str | None,
    ) -> CommonFactors:
        """Return factors of nothing yet, of as many directions as fit into `max_bytes`."""
        column_bytes = 2 * 4 * num_layers * num_logical_experts
        rank = min(max_rank, max_bytes // column_bytes)
        shape = (num_layers, num_logical_experts, rank)
        errors, swings = (torch.zeros(shape, device=device, dtype=torch.float32) for _ in "es")
        return cls(errors, swings)

    @property
    def rank(self) -> int:
        """Directions in each factor."""
        return self.errors.shape[-1]

    def fold(self, decay: Tensor, strays: Tensor, window: WindowShares) -> None:
        """Take a window in. Mutates the factors.

        Args:
            decay: [num_layers] float64, in [0, 1].
            strays: [num_layers, num_samples, num_logical_experts] float64, errors; their outer
                products are added up as they are.
            window: The samples.
        """
        if not self.rank:
            return
        self.errors = _folded(self.errors, decay, strays)
        degrees = (window.num_loaded - 1.0).clamp_min(0.0)
        centred = window.share - window.mean.unsqueeze(1)
        centred = torch.where(window.is_loaded.unsqueeze(-1), centred, 0.0)
        kept = torch.where(degrees > 0, decay**_HASTE, 1.0)
        scale = ((1.0 - kept) / degrees.clamp_min(1.0)).sqrt()
        self.swings = _folded(self.swings, kept, centred * scale.view(-1, 1, 1))

    def follow(self, way: Tensor) -> Tensor:
        """Return the part of a change of shares that the mix of all layers can make.

        Args:
            way: [num_layers, num_logical_experts] float64; returned as it is by factors of rank 0.
        """
        if not self.rank:
            return way
        directions = self.errors.to(torch.float64).flatten(0, 1)
        gram = directions.mT @ directions
        strength = gram.diagonal()
        # The weakest direction is noise, when more are kept than traffic has: errors of the past
        # are directions too. What is not well above it is not followed.
        ridge = strength.amin() + _RIDGE * strength.mean()
        identity = torch.eye(self.rank, dtype=gram.dtype, device=gram.device)
        # Without errors there is nothing to invert, and the part is zero.
        gram = gram + torch.where(ridge > 0, ridge, 1.0) * identity
        root = torch.linalg.cholesky_ex(gram).L  # the other one waits for the device
        along = torch.cholesky_solve((directions.mT @ way.flatten()).unsqueeze(-1), root)
        return (directions @ along).view_as(way)

    def blend(
        self, own: Tensor | FactoredCovariance, weight: Tensor
    ) -> Tensor | FactoredCovariance:
        """Return a covariance of which most is common to all layers, in the form of `own`.

        The sum of a layer's variances stays.

        Args:
            own: Each layer's covariance; a dense one is written to, and returned.
            weight: [num_layers] float64, by which errors are divided.
        """
        if not self.rank:
            return own
        if isinstance(own, FactoredCovariance):
            factor, diagonal = self._common(own.variance(), weight)
            parts = (own.factor * (1.0 - _COMMON_PART) ** 0.5, factor * _COMMON_PART**0.5)
            rest = own.diagonal * (1.0 - _COMMON_PART) + diagonal * _COMMON_PART
            return FactoredCovariance(torch.cat(parts, dim=-1), rest)
        factor, diagonal = self._common(own.diagonal(dim1=1, dim2=2), weight)
        own.baddbmm_(factor, factor.mT, beta=1.0 - _COMMON_PART, alpha=_COMMON_PART)
        own.diagonal(dim1=1, dim2=2).add_(diagonal, alpha=_COMMON_PART)
        return own

    def _common(self, variance: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return factor and diagonal of the common covariance."""
        errors = self.errors * _root_of_inverse(weight).to(self.errors.dtype).view(-1, 1, 1)
        rest = (variance - errors.square().sum(dim=-1)).clamp_min(0.0)
        strength = errors.square().sum(dim=(1, 2))
        swing = self.swings.square().sum(dim=(1, 2))
        part = torch.where(swing > 0, _SWINGS_PART, 0.0)
        scale = part * strength / torch.where(swing > 0, swing, 1.0)
        parts = (
            errors * (1.0 - part).sqrt().view(-1, 1, 1),
            self.swings * scale.sqrt().view(-1, 1, 1),
        )
        return torch.cat(parts, dim=-1), rest


def _folded(factor: Tensor, decay: Tensor, deviations: Tensor) -> Tensor:
    """Return the strongest directions of a factor that forgets and of new deviations."""
    kept = factor * decay.sqrt().to(factor.dtype).view(-1, 1, 1)
    columns = torch.cat([kept, deviations.mT.to(factor.dtype)], dim=-1)
    flat = columns.flatten(0, 1)
    basis = strongest(flat.unsqueeze(0), factor.shape[-1])[0]
    return (flat @ basis).view_as(factor)


def _root_of_inverse(weight: Tensor) -> Tensor:
    return torch.where(weight > 0, torch.where(weight > 0, weight, 1.0).rsqrt(), 0.0)
