"""Second moments of shares: as they are learned, and as they are handed out.

Dense, or a factor of low rank plus a diagonal; `new_moment` decides by size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from expertplane_planner.errors import InvalidInputError


if TYPE_CHECKING:
    from torch import Tensor


_FLOAT_BYTES = 4
_NUM_REFINEMENTS = 3  # of the subspace that is kept; a fourth changes nothing that can be measured


@dataclass(frozen=True, slots=True, eq=False)
class FactoredCovariance:
    """Per layer factor @ factor^T plus a diagonal.

    Raises:
        InvalidInputError: Shapes, dtypes or devices do not fit together.
    """

    factor: Tensor
    """[num_layers, num_logical_experts, rank] float32 or float64; the rank may be 0."""

    diagonal: Tensor
    """[num_layers, num_logical_experts], dtype and device of the factor, non-negative."""

    def __post_init__(self) -> None:
        shape = self.diagonal.shape
        if len(shape) != 2 or self.factor.dim() != 3 or self.factor.shape[:2] != shape:
            raise InvalidInputError(
                "prediction.covariance",
                "Expected a factor of shape [num_layers, num_logical_experts, rank] and a "
                "diagonal of [num_layers, num_logical_experts], "
                f"got {list(self.factor.shape)} and {list(shape)}.",
            )
        kinds = [(part.dtype, part.device) for part in (self.factor, self.diagonal)]
        if kinds[0] != kinds[1]:
            raise InvalidInputError(
                "prediction.covariance",
                "Expected factor and diagonal of one dtype on one device, "
                f"got {kinds[0]} and {kinds[1]}.",
            )

    def variance(self) -> Tensor:
        """Return the whole diagonal, [num_layers, num_logical_experts]."""
        return self.factor.square().sum(dim=-1) + self.diagonal

    def of_layer(self, layer: int) -> Tensor:
        """Return one layer's matrix, [num_logical_experts, num_logical_experts]."""
        factor = self.factor[layer]
        return factor @ factor.mT + torch.diag(self.diagonal[layer])

    def dense(self) -> Tensor:
        """Return all, [num_layers, num_logical_experts, num_logical_experts]."""
        return self.factor @ self.factor.mT + torch.diag_embed(self.diagonal)

    def to(self, device: torch.device | str) -> FactoredCovariance:
        """Return the same on another device."""
        return FactoredCovariance(self.factor.to(device), self.diagonal.to(device))


class Moment(Protocol):
    """A weighted sum of second moments that forgets."""

    def fold(self, decay: Tensor, deviations: Tensor, diagonal: Tensor) -> None:
        """Scale what there is, then add outer products and a diagonal. Mutates the moment.

        Args:
            decay: [num_layers] float64, in [0, 1].
            deviations: [num_layers, num_samples, num_logical_experts] float64; their outer
                products are added up as they are.
            diagonal: [num_layers, num_logical_experts] float64, non-negative.
        """

    def mean(self, weight: Tensor) -> Tensor | FactoredCovariance:
        """Return the moment divided by its weight, zero where that is zero, as a copy.

        Args:
            weight: [num_layers] float64.
        """
        ...


@dataclass(slots=True, eq=False)
class DenseMoment:
    """Every pair of experts."""

    second: Tensor
    """[num_layers, num_logical_experts, num_logical_experts] float32."""

    def fold(self, decay: Tensor, deviations: Tensor, diagonal: Tensor) -> None:
        """Scale what there is, then add; see `Moment`."""
        strays = deviations.to(self.second.dtype)
        self.second.mul_(decay.to(self.second.dtype).view(-1, 1, 1))
        self.second.baddbmm_(strays.mT, strays)
        self.second.diagonal(dim1=1, dim2=2).add_(diagonal.to(self.second.dtype))

    def mean(self, weight: Tensor) -> Tensor:
        """Return the mean; see `Moment`."""
        return self.second * _inverse(weight).to(self.second.dtype).view(-1, 1, 1)


@dataclass(slots=True, eq=False)
class FactoredMoment:
    """The strongest directions, and the exact diagonal.

    A new window's deviations are put beside the factor, and of the span of all of them the
    strongest `rank` directions are kept (subspace iteration on the small Gram matrix). What is
    kept is never more than the whole, so what the diagonal must make up for is never negative.
    """

    factor: Tensor
    """[num_layers, num_logical_experts, rank] float32."""

    variance: Tensor
    """[num_layers, num_logical_experts] float32, the diagonal of the whole."""

    def fold(self, decay: Tensor, deviations: Tensor, diagonal: Tensor) -> None:
        """Scale what there is, then add; see `Moment`."""
        dtype = self.factor.dtype
        kept = self.factor * decay.sqrt().to(dtype).view(-1, 1, 1)
        columns = torch.cat([kept, deviations.mT.to(dtype)], dim=-1)
        self.factor = columns @ strongest(columns, self.factor.shape[-1])
        added = deviations.square().sum(dim=1) + diagonal
        self.variance = self.variance * decay.to(dtype).unsqueeze(-1) + added.to(dtype)

    def mean(self, weight: Tensor) -> FactoredCovariance:
        """Return the mean; see `Moment`."""
        inverse = _inverse(weight).to(self.factor.dtype)
        remainder = (self.variance - self.factor.square().sum(dim=-1)).clamp_min(0.0)
        return FactoredCovariance(
            self.factor * inverse.sqrt().view(-1, 1, 1), remainder * inverse.unsqueeze(-1)
        )


def new_moment(
    num_layers: int,
    num_logical_experts: int,
    *,
    max_bytes: int,
    max_rank: int,
    device: torch.device | str | None = None,
) -> DenseMoment | FactoredMoment:
    """Return an empty moment: dense if that fits into `max_bytes`, else of low rank.

    Raises:
        InvalidInputError: Not even rank 1 fits.
    """
    column_bytes = _FLOAT_BYTES * num_layers * num_logical_experts
    if column_bytes * num_logical_experts <= max_bytes:
        shape = (num_layers, num_logical_experts, num_logical_experts)
        return DenseMoment(torch.zeros(shape, dtype=torch.float32, device=device))
    num_columns = max_bytes // column_bytes  # one of them is the diagonal
    if num_columns < 2:
        raise InvalidInputError(
            "forecast.max_bytes",
            f"Expected max_bytes of at least {2 * column_bytes} for {num_layers} layers of "
            f"{num_logical_experts} experts, got {max_bytes}.",
        )
    rank = min(num_columns - 1, max_rank, num_logical_experts)
    shape = (num_layers, num_logical_experts, rank)
    factor = torch.zeros(shape, dtype=torch.float32, device=device)
    return FactoredMoment(factor, torch.zeros(shape[:2], dtype=torch.float32, device=device))


def _inverse(weight: Tensor) -> Tensor:
    return torch.where(weight > 0, 1.0 / torch.where(weight > 0, weight, 1.0), 0.0)


def strongest(columns: Tensor, rank: int) -> Tensor:
    """Return how to combine columns into fewer that keep most of their square.

    Not an eigensolver: on CUDA those wait for the device to say whether they converged.

    Args:
        columns: [num_rows, num_values, num_columns] floating point.
        rank: Columns that are left, at most num_columns.

    Returns:
        [num_rows, num_columns, rank], orthonormal columns.
    """
    gram = (columns.mT @ columns).to(torch.float64)
    start = _scattered(gram.shape[-1], rank, gram.device).expand(gram.shape[0], -1, -1)
    basis = torch.linalg.qr(gram @ start).Q
    for _ in range(_NUM_REFINEMENTS):
        basis = torch.linalg.qr(gram @ basis).Q
    kept: Tensor = basis.to(columns.dtype)
    return kept


def _scattered(num_rows: int, num_columns: int, device: torch.device) -> Tensor:
    """Return numbers in [-1, 1] without pattern, the same on every device, made where they are.

    A multiplicative hash in integers, Lehmer's with Park and Miller's modulus.
    """
    modulus = 2**31 - 1
    index = torch.arange(1, num_rows * num_columns + 1, dtype=torch.int64, device=device)
    for multiplier in (48271, 69621, 16807):
        index = ((index ^ (index >> 13)) * multiplier) % modulus
    return (index.to(torch.float64) * (2.0 / modulus) - 1.0).view(num_rows, num_columns)
