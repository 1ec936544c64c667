"""What is expected of the coming steps: the noun that goes from forecast to solver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from expertplane_planner.errors import InvalidInputError
from expertplane_planner.model.load import ExpertLoad

from .covariance import FactoredCovariance, new_moment
from .params import ForecastParams
from .prior import cold_start, step_variance
from .shares import shares_of


if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


_FLOATS = (torch.float32, torch.float64)
_TOLERANCE = 1e-6  # of the sum of a layer's shares


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Expected shares of one step, and the second moment of what a step strays from them by.

    The tensors are checked once and not copied: whoever made them must not write to them
    afterwards. Birth makes the host wait once for the device. That a dense covariance is
    symmetric and positive semidefinite is left to who made it.

    Raises:
        InvalidInputError: Shapes, dtypes or devices do not fit together, or values are not
            finite, negative, or no shares; the field is `prediction.<name>`.
    """

    mean: Tensor
    """[num_layers, num_logical_experts] float64: expected share of each expert in its layer. Sums
    to 1, or is all zeros in a layer without load."""

    covariance: Tensor | FactoredCovariance
    """[num_layers, num_logical_experts, num_logical_experts] float32 or float64, in squared shares
    and not centred: what the mean is wrong by is in it. Factored where dense would not fit."""

    scale: Tensor
    """[num_layers] float64, mean tokens of a layer and sample: tokens = share * scale."""

    def __post_init__(self) -> None:
        self._check_shapes()
        if not self.mean.is_meta:  # tensors without values have none to check
            self._check_values()

    @classmethod
    def from_samples(
        cls, samples: Tensor, *, num_requests: int = 256, max_bytes: int = 64 * 2**20
    ) -> Prediction:
        """Return what one window says on its own, as a forecast would after its first window.

        The mean is that of the samples. The covariance is theirs, unbiased and widened by the
        mean's own uncertainty; see `prior.cold_start` for what few samples are filled up with.

        Args:
            samples: [num_samples, num_layers, num_logical_experts], tokens. A layer's samples
                without load are left out.
            num_requests: Independent requests behind a sample; matters for a single sample only.
            max_bytes: Bound of the covariance; beyond it, it is factored.

        Raises:
            InvalidInputError: The samples are no load, or an argument leaves its range.
        """
        return cls.of_window(ExpertLoad(samples), num_requests=num_requests, max_bytes=max_bytes)

    @classmethod
    def of_window(
        cls, load: ExpertLoad, *, num_requests: int = 256, max_bytes: int = 64 * 2**20
    ) -> Prediction:
        """Return what one window says on its own, see `from_samples`; the load is checked already.

        Raises:
            InvalidInputError: An argument leaves its range.
        """
        params = ForecastParams(num_requests=num_requests, max_bytes=max_bytes)
        samples = load.samples
        moment = new_moment(
            load.num_layers,
            load.num_logical_experts,
            max_bytes=params.max_bytes,
            max_rank=params.max_rank,
            device=samples.device,
        )
        window = shares_of(samples)
        ones = torch.ones_like(window.tokens)
        moment.fold(ones, *cold_start(window, params.num_requests))
        return cls(window.mean, moment.mean(ones), window.tokens)

    @classmethod
    def from_load(
        cls, weight: Tensor, *, num_requests: int = 256, num_samples: int = 1
    ) -> Prediction:
        """Return the prior around a load that came without samples.

        Experts vary independently: Poisson noise, and requests that differ (see `prior`). Poisson
        noise is in tokens, so this alone of all predictions depends on the unit of the load.

        Args:
            weight: [num_layers, num_logical_experts], tokens.
            num_requests: Independent requests behind one sample.
            num_samples: Samples, or steps, that the load is the sum of.

        Returns:
            A prediction whose covariance is factored, of rank 0.

        Raises:
            InvalidInputError: The weight is no load, or an argument leaves its range.
        """
        params = ForecastParams(num_requests=num_requests)
        if num_samples < 1:
            raise InvalidInputError(
                "num_samples", f"Expected num_samples to be positive, got {num_samples}."
            )
        load = ExpertLoad.from_weight(weight)
        window = shares_of(load.samples)
        tokens = window.tokens / num_samples
        variance = step_variance(window.mean, tokens, params.num_requests)
        no_factor = variance.new_zeros((*variance.shape, 0))
        return cls(window.mean, FactoredCovariance(no_factor, variance), tokens)

    @classmethod
    def stacked(cls, predictions: Sequence[Prediction]) -> Prediction:
        """Return several predictions as one, layer after layer; what was checked is not again.

        Args:
            predictions: At least one; of equally many logical experts, on one device, with dense
                covariances of one dtype.

        Raises:
            InvalidInputError: A covariance is factored.
        """
        covariances = [each.covariance for each in predictions]
        dense = [each for each in covariances if not isinstance(each, FactoredCovariance)]
        if len(dense) < len(covariances):
            raise InvalidInputError(
                "prediction.covariance", "Expected dense covariances to stack, got a factored one."
            )
        stacked = object.__new__(cls)
        object.__setattr__(stacked, "mean", torch.cat([each.mean for each in predictions]))
        object.__setattr__(stacked, "covariance", torch.cat(dense))
        object.__setattr__(stacked, "scale", torch.cat([each.scale for each in predictions]))
        return stacked

    @property
    def num_layers(self) -> int:
        """MoE layers."""
        return self.mean.shape[0]

    @property
    def num_logical_experts(self) -> int:
        """Logical experts per layer."""
        return self.mean.shape[1]

    @property
    def device(self) -> torch.device:
        """Where all tensors are."""
        return self.mean.device

    def variance(self) -> Tensor:
        """Return the diagonal of the covariance, [num_layers, num_logical_experts]."""
        if isinstance(self.covariance, FactoredCovariance):
            return self.covariance.variance()
        return self.covariance.diagonal(dim1=1, dim2=2)

    def covariance_of(self, layer: int) -> Tensor:
        """Return one layer's covariance, [num_logical_experts, num_logical_experts]."""
        if isinstance(self.covariance, FactoredCovariance):
            return self.covariance.of_layer(layer)
        return self.covariance[layer]

    def dense_covariance(self, max_bytes: int = 2**30) -> Tensor:
        """Return the covariance of all layers at once, the tensor itself if it is one.

        Returns:
            [num_layers, num_logical_experts, num_logical_experts].

        Raises:
            InvalidInputError: It would take more than `max_bytes`; take it layer by layer.
        """
        if not isinstance(self.covariance, FactoredCovariance):
            return self.covariance
        num_values = self.num_layers * self.num_logical_experts**2
        num_bytes = num_values * self.covariance.diagonal.element_size()
        if num_bytes > max_bytes:
            raise InvalidInputError(
                "max_bytes",
                f"Expected a dense covariance of at most {max_bytes} bytes, got {num_bytes}.",
            )
        return self.covariance.dense()

    def to(self, device: torch.device | str) -> Prediction:
        """Return the same prediction on another device, itself if it is there already."""
        mean = self.mean.to(device)
        if mean is self.mean:
            return self
        return Prediction(mean, self.covariance.to(device), self.scale.to(device))

    def _check_shapes(self) -> None:
        if self.mean.dim() != 2 or 0 in self.mean.shape:
            raise InvalidInputError(
                "prediction.mean",
                "Expected mean of shape [num_layers, num_logical_experts], "
                f"got {list(self.mean.shape)}.",
            )
        layers, experts = self.mean.shape
        covariance = self._covariance_values()
        wide = (layers, experts, *covariance.shape[2:])
        is_factored = isinstance(self.covariance, FactoredCovariance)
        for name, tensor, shape, dtypes in (
            ("mean", self.mean, (layers, experts), _FLOATS[1:]),
            (
                "covariance",
                covariance,
                wide if is_factored else (layers, experts, experts),
                _FLOATS,
            ),
            ("scale", self.scale, (layers,), _FLOATS[1:]),
        ):
            if tensor.shape != shape or tensor.dtype not in dtypes or tensor.device != self.device:
                raise InvalidInputError(
                    f"prediction.{name}",
                    f"Expected {name} of shape {list(shape)} and {' or '.join(map(str, dtypes))} "
                    f"on {self.device}, "
                    f"got {list(tensor.shape)} and {tensor.dtype} on {tensor.device}.",
                )

    def _covariance_values(self) -> Tensor:
        whole = self.covariance
        return whole.factor if isinstance(whole, FactoredCovariance) else whole

    def _check_values(self) -> None:
        covariance = self.covariance
        values = self._covariance_values()
        diagonal = (
            covariance.diagonal if isinstance(covariance, FactoredCovariance) else self.variance()
        )
        total = self.mean.sum(dim=-1)
        # A norm is finite if and only if all values are, and takes one pass without a temporary.
        norm = torch.linalg.vector_norm(values)
        is_share = ((total - 1.0).abs() <= _TOLERANCE) | (total == 0)
        rules = (
            ("mean", "finite, non-negative shares", self.mean, _is_amount(self.mean)),
            ("mean", "shares that sum to 1, or to 0 without load", total, is_share),
            ("covariance", "a finite norm of the covariance", norm, torch.isfinite(norm)),
            ("covariance", "finite, non-negative variances", diagonal, _is_amount(diagonal)),
            ("scale", "finite, non-negative tokens", self.scale, _is_amount(self.scale)),
        )
        verdicts = torch.stack([is_right.all() for *_, is_right in rules]).tolist()
        for (name, expectation, found, is_right), verdict in zip(rules, verdicts, strict=True):
            if not verdict:
                index = torch.nonzero(~is_right)[0].tolist()
                where = f" at {index}" if index else ""
                raise InvalidInputError(
                    f"prediction.{name}",
                    f"Expected {expectation}, got {found[tuple(index)].item()}{where}.",
                )


def _is_amount(values: Tensor) -> Tensor:
    return torch.isfinite(values) & (values >= 0)
