"""The forecasts that the solver process remembers, within bounds. Imports torch: its end alone."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from expertplane_planner import Forecast, ForecastParams
from expertplane_server.core.limits import MAX_FORECAST_BYTES
from expertplane_server.runtime.device_trouble import is_device_trouble


if TYPE_CHECKING:
    import torch

    from expertplane_server.runtime.jobs import ForecastRef


@dataclass(frozen=True, slots=True)
class _Kept:
    generation: int
    forecast: Forecast
    num_bytes: int


class ForecastShelf:
    """One forecast per deployment; the least recently used go first.

    What is dropped here is not lost: the service asks for checkpoints, and brings them back.

    Args:
        device: where forecasts are kept.
        max_bytes: of all forecasts together; the latest stays even when it alone is larger.
    """

    def __init__(self, device: torch.device, *, max_bytes: int = MAX_FORECAST_BYTES) -> None:
        self._device = device
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def find(self, ref: ForecastRef) -> Forecast | None:
        """Returns the forecast as it is remembered, or None."""
        kept = self._kept.get(ref.deployment)
        if kept is None or kept.generation != ref.generation:
            return None
        self._kept.move_to_end(ref.deployment)
        return kept.forecast

    def begin(self, ref: ForecastRef, num_layers: int, num_experts: int) -> tuple[Forecast, str]:
        """Makes room for a forecast and returns it, from its checkpoint if that can be used.

        Returns:
            The forecast, and why the checkpoint was refused; empty when it was not.

        Raises:
            MemoryError: there is no room for it now, which says nothing about the checkpoint;
                torch has errors of its own for this, and for a device that is lost, and they come
                through as well.
        """
        assert ref.start is not None, "nowhere to begin"
        params = ForecastParams(
            recent_windows=ref.parameters.recent_windows,
            half_life_windows=ref.parameters.half_life_windows,
        )
        forecast, refusal = None, ""
        if ref.start.checkpoint is not None:
            try:
                forecast = Forecast.from_bytes(ref.start.checkpoint, self._device)
                refusal = _why_not(forecast, num_layers, num_experts, params)
            except Exception as error:  # whatever is wrong with it must not stop the planner
                if _is_want_of_memory(error) or is_device_trouble(error):
                    raise
                refusal = f"{type(error).__name__}: {error}"
        if forecast is None or refusal:
            forecast = Forecast(num_layers, num_experts, params=params, device=self._device)
        self._keep(ref, forecast)
        return forecast, refusal

    def _keep(self, ref: ForecastRef, forecast: Forecast) -> None:
        """Remembers a forecast, and forgets the least recently used beyond the bound."""
        kept = _Kept(ref.generation, forecast, _num_bytes(forecast))
        self._kept.pop(ref.deployment, None)
        self._kept[ref.deployment] = kept
        total = sum(each.num_bytes for each in self._kept.values())
        while total > self._max_bytes and len(self._kept) > 1:
            total -= self._kept.popitem(last=False)[1].num_bytes


def _is_want_of_memory(error: Exception) -> bool:
    """Tells whether an error says nothing about what was read, only that the host had no room."""
    # Torch tells by its words alone.
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def _why_not(forecast: Forecast, num_layers: int, num_experts: int, wanted: Any) -> str:
    """Returns why a restored forecast is not the one that is wanted; empty when it is.

    Parameters that no operator sets may differ: the forecast goes on with those it began with.
    """
    for name, expected, got in (
        ("layers", num_layers, forecast.num_layers),
        ("experts", num_experts, forecast.num_logical_experts),
        ("recent_windows", wanted.recent_windows, forecast.params.recent_windows),
        ("half_life_windows", wanted.half_life_windows, forecast.params.half_life_windows),
    ):
        if expected != got:
            return f"Expected a checkpoint with {name} {expected}, got {got}."
    return ""


def _num_bytes(forecast: Forecast) -> int:
    """Returns what a forecast takes; that never changes."""
    return sum(getattr(value, "nbytes", 0) for value in forecast.state().values())
