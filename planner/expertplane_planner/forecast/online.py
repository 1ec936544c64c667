"""The forecast: learns from window after window of load, says what to expect of the next."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from expertplane_planner.errors import InvalidInputError
from expertplane_planner.model.load import MAX_LAYERS, MAX_LOGICAL_EXPERTS, ExpertLoad

from .archive import decode, encode
from .params import ForecastParams
from .prediction import Prediction
from .prior import cold_start
from .shares import WindowShares, shares_of
from .state import blank, restore, snapshot


if TYPE_CHECKING:
    from torch import Tensor

    from .alarm import Surprise
    from .state import State


class Forecast:
    """Predictive mean and covariance of expert shares, kept online in bounded memory.

    The mean follows the latest windows (`means`). The covariance is the exponentially forgotten
    mean, over past windows, of the second moment of a window's steps around what was predicted
    before the window came. So it holds sampling noise, drift of the traffic mix and co-activation
    at once, as far as they have made forecasts wrong. All layers serve the same traffic: what they
    have in common (`common`) takes noise out of both.

    A layer's first window had no forecast: in its place stands the window's own covariance
    (`prior.cold_start`), with the weight of any other window. It makes up 1 / t of the covariance
    after t windows, and is forgotten with them.

    A window that raises the drift alarm (`alarm`) enters the covariance scaled down to the alarm's
    threshold; the covariance of the long run is kept. The mean follows at once: earlier windows
    are dropped, and the next prediction does not lean on the long run.

    Deterministic: the same windows on the same kind of device with as many threads give the same
    numbers. Everything stays on the device; births of nouns make the host wait for their checks.

    Args:
        num_layers: MoE layers, 1 to 256.
        num_logical_experts: Logical experts per layer, 1 to 4096.
        params: How to learn.
        device: Where to keep the state; predictions come from there.

    Raises:
        InvalidInputError: A dimension leaves its bounds, or `max_bytes` is too little for them.
    """

    def __init__(
        self,
        num_layers: int,
        num_logical_experts: int,
        *,
        params: ForecastParams | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        for name, value, bound in (
            ("num_layers", num_layers, MAX_LAYERS),
            ("num_logical_experts", num_logical_experts, MAX_LOGICAL_EXPERTS),
        ):
            if not 1 <= value <= bound:
                raise InvalidInputError(
                    f"forecast.{name}", f"Expected {name} in [1, {bound}], got {value}."
                )
        self.params = params or ForecastParams()
        self.num_layers = num_layers
        self.num_logical_experts = num_logical_experts
        self._num_windows = 0
        self._parts = blank(num_layers, num_logical_experts, self.params, device)

    @property
    def num_windows(self) -> int:
        """Windows observed so far."""
        return self._num_windows

    @property
    def device(self) -> torch.device:
        """Where the state is."""
        return self._parts.means.weight.device

    @property
    def surprise(self) -> Surprise:
        """How the latest window compared with its forecast; 1 before there was one."""
        return self._parts.alarm.surprise()

    @property
    def is_drifting(self) -> bool:
        """Whether the latest window raised the alarm. Waits for the device."""
        return bool(self._parts.alarm.is_drifting.item())

    def observe(self, samples: Tensor) -> None:
        """Take in the next window. Changes the state, not the samples.

        Args:
            samples: [num_samples, num_layers, num_logical_experts], tokens, with the dtypes and
                bounds of `ExpertLoad`; brought to the forecast's device. Samples in which a layer
                has no load are left out for that layer, and a layer without any stays as it was.

        Raises:
            InvalidLoadError: The samples are no load.
            InvalidInputError: Their layers or experts are not the forecast's. The state is as
                before in both cases.
        """
        if not samples.is_meta:  # tensors without values have none to check
            ExpertLoad(samples)
        expected = (self.num_layers, self.num_logical_experts)
        if samples.shape[1:] != expected:
            raise InvalidInputError(
                "samples",
                f"Expected samples of {expected[0]} layers and {expected[1]} experts, "
                f"got {list(samples.shape)}.",
            )
        window = shares_of(samples.to(self.device))
        means, moment, alarm = self._parts.means, self._parts.moment, self._parts.alarm
        common = self._parts.common
        decay = self.params.decay
        has_load = window.num_loaded > 0
        is_known = means.weight > 0

        predicted = means.mean(self.params, alarm.is_drifting, common.follow)
        trust = alarm.judge(predicted, window, is_known & has_load, self.params)
        strays, diagonal = self._strays(window, predicted, is_known, trust)
        kept = 1.0 - (1.0 - decay) * has_load.to(torch.float64)
        strays = strays * (1.0 - decay) ** 0.5
        means.fold(window, decay, alarm.is_drifting, trust, common.follow)
        moment.fold(kept, strays, diagonal * (1.0 - decay))
        common.fold(kept, strays, window)
        self._num_windows += 1

    def predict(self) -> Prediction:
        """Return what to expect of the next window's steps, in tensors of its own.

        A layer that has never had load has zeros everywhere.

        Raises:
            InvalidInputError: No window has been observed; see `Prediction.from_load`.
        """
        if not self._num_windows:
            raise InvalidInputError(
                "forecast", "Expected a window to be observed before the first prediction, got 0."
            )
        means, alarm, common = self._parts.means, self._parts.alarm, self._parts.common
        own = self._parts.moment.mean(means.weight)
        return Prediction(
            mean=means.mean(self.params, alarm.is_drifting, common.follow),
            covariance=common.blend(own, means.weight),
            scale=means.tokens(),
        )

    def clone(self) -> Forecast:
        """Return an independent copy: to look at part of a window before all of it is observed."""
        return copy.deepcopy(self)

    def state(self) -> State:
        """Return everything there is to know, as arrays and numbers, for `from_state`.

        Host memory; later windows do not change it.
        """
        return snapshot(self.params, self._num_windows, self._parts)

    @classmethod
    def from_state(cls, state: State, device: torch.device | str | None = None) -> Forecast:
        """Return a forecast that goes on as if there had been no interruption.

        Args:
            state: From `state()`, of this version. Copied.
            device: Where to go on.

        Raises:
            InvalidInputError: It is no such state; the field is `checkpoint`.
        """
        restored = restore(state, device)
        forecast = cls(
            restored.num_layers,
            restored.num_logical_experts,
            params=restored.params,
            device="meta",  # takes no memory, which is what has been restored
        )
        forecast._num_windows, forecast._parts = restored.num_windows, restored.parts
        if forecast._num_windows:
            try:
                forecast.predict()
            except InvalidInputError as error:
                raise InvalidInputError(
                    "checkpoint", f"Expected a state that predicts: {error}"
                ) from error
        return forecast

    def to_bytes(self) -> bytes:
        """Return the state as an uncompressed npz archive."""
        return encode(self.state())

    @classmethod
    def from_bytes(
        cls,
        checkpoint: bytes,
        device: torch.device | str | None = None,
        *,
        max_bytes: int = 2**30,
    ) -> Forecast:
        """Return the forecast that was written by `to_bytes`.

        Args:
            checkpoint: The archive; nothing in it is executed.
            device: Where to go on.
            max_bytes: Refuse to read a larger one.

        Raises:
            InvalidInputError: It is damaged, too large or of another version; the field is
                `checkpoint`.
        """
        return cls.from_state(decode(checkpoint, max_bytes), device)

    def _strays(
        self, window: WindowShares, predicted: Tensor, is_known: Tensor, trust: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return deviations and a diagonal that make up this window's second moment."""
        own, own_diagonal = cold_start(window, self.params.num_requests)
        errors = window.share - predicted.unsqueeze(1)
        scale = (trust / window.num_loaded.clamp_min(1.0)).sqrt()
        counts = (window.is_loaded & is_known.unsqueeze(-1)).to(torch.float64)
        errors = errors * (counts * scale.unsqueeze(-1)).unsqueeze(-1)
        is_new = (~is_known).unsqueeze(-1)
        return (
            torch.where(is_new.unsqueeze(-1), own, errors),
            torch.where(is_new, own_diagonal, 0.0),
        )
