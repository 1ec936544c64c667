"""A forecast's state: its parts, as plain arrays, and back after checks."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from expertplane_planner.errors import InvalidInputError
from expertplane_planner.model.load import MAX_LAYERS, MAX_LOGICAL_EXPERTS

from .alarm import DriftAlarm
from .archive import refusal
from .common import CommonFactors
from .covariance import DenseMoment, FactoredMoment, new_moment
from .means import RunningMeans
from .params import ForecastParams


if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt
    from torch import Tensor

    State = dict[str, int | float | npt.NDArray[Any]]


VERSION = 2

_NUMBERS = ("version", "num_layers", "num_logical_experts", "num_windows")
_PARAMS = tuple(field.name for field in dataclasses.fields(ForecastParams))
_WHOLE_PARAMS = (
    "recent_windows",
    "max_bytes",
    "max_rank",
    "common_rank",
    "num_requests",
    "alarm_warmup_windows",
)
_SIGNED = (
    "means.regression",
    "moment.second",
    "moment.factor",
    "common.errors",
    "common.swings",
    "alarm.log_sums",
)


@dataclass(slots=True, eq=False)
class Parts:
    """The mutable parts of a forecast."""

    means: RunningMeans
    moment: DenseMoment | FactoredMoment
    common: CommonFactors
    alarm: DriftAlarm

    def tensors(self) -> Iterator[tuple[str, object, str]]:
        """Yield name, owner and attribute of every tensor, in a fixed order."""
        for part in dataclasses.fields(self):
            owner = getattr(self, part.name)
            for field in dataclasses.fields(owner):
                yield f"{part.name}.{field.name}", owner, field.name


@dataclass(frozen=True, slots=True)
class Restored:
    """A state that has been checked."""

    num_layers: int
    num_logical_experts: int
    num_windows: int
    params: ForecastParams
    parts: Parts


def blank(
    num_layers: int,
    num_logical_experts: int,
    params: ForecastParams,
    device: torch.device | str | None,
) -> Parts:
    """Return the parts of a forecast that has seen nothing."""
    return Parts(
        means=RunningMeans.empty(num_layers, num_logical_experts, params.recent_windows, device),
        moment=new_moment(
            num_layers,
            num_logical_experts,
            max_bytes=params.max_bytes,
            max_rank=params.max_rank,
            device=device,
        ),
        common=CommonFactors.empty(
            num_layers,
            num_logical_experts,
            max_bytes=params.max_bytes // 8,
            max_rank=params.common_rank,
            device=device,
        ),
        alarm=DriftAlarm.empty(num_layers, device),
    )


def snapshot(params: ForecastParams, num_windows: int, parts: Parts) -> State:
    """Return parameters, counts and copies of all tensors by name."""
    num_layers, num_logical_experts = parts.means.long_run.shape
    state: State = {
        "version": VERSION,
        "num_layers": num_layers,
        "num_logical_experts": num_logical_experts,
        "num_windows": num_windows,
    }
    for name in _PARAMS:
        value = getattr(params, name)
        state[f"params.{name}"] = math.nan if value is None else value
    for name, owner, attribute in parts.tensors():
        tensor: Tensor = getattr(owner, attribute)
        state[name] = tensor.to("cpu", copy=True).contiguous().numpy()
    return state


def restore(state: State, device: torch.device | str | None) -> Restored:
    """Return the parts that a state describes.

    Raises:
        InvalidInputError: A name is missing or unknown, or a value is not what it must be.
    """
    version = state.get("version")
    if not isinstance(version, int) or version != VERSION:
        raise refusal(f"version {VERSION}", repr(version))
    num_layers = _whole(state, "num_layers", 1, MAX_LAYERS)
    num_logical_experts = _whole(state, "num_logical_experts", 1, MAX_LOGICAL_EXPERTS)
    num_windows = _whole(state, "num_windows", 0, 2**53)
    try:
        params = _restored_params(state)
        parts = blank(num_layers, num_logical_experts, params, "meta")
    except InvalidInputError as error:
        if error.field == "checkpoint":
            raise
        raise InvalidInputError("checkpoint", str(error)) from error
    tensors = list(parts.tensors())
    expected = {
        *_NUMBERS,
        *(f"params.{name}" for name in _PARAMS),
        *(name for name, *_ in tensors),
    }
    if state.keys() != expected:
        raise refusal(f"the names {sorted(expected)}", str(sorted(state)))
    for name, owner, attribute in tensors:
        values = _checked_array(name, state[name], getattr(owner, attribute))
        setattr(owner, attribute, torch.from_numpy(values.copy()).to(device))
    return Restored(num_layers, num_logical_experts, num_windows, params, parts)


def _restored_params(state: State) -> ForecastParams:
    values: dict[str, Any] = {}
    for name in _PARAMS:
        if name in _WHOLE_PARAMS:
            values[name] = _whole(state, f"params.{name}", 0, 2**53)
            continue
        value = state.get(f"params.{name}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise refusal(f"a number params.{name}", repr(value)[:80])
        is_none = name == "shrinkage" and math.isnan(value)
        values[name] = None if is_none else float(value)
    return ForecastParams(**values)


def _whole(state: State, name: str, lowest: int, highest: int) -> int:
    value = state.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise refusal(f"{name} in [{lowest}, {highest}]", repr(value)[:80])
    return value


def _checked_array(name: str, value: object, like: Tensor) -> npt.NDArray[Any]:
    dtype = torch.empty(0, dtype=like.dtype).numpy().dtype
    if isinstance(value, int | float):  # which is how an array without dimensions is read
        value = np.asarray(value)
    if not isinstance(value, np.ndarray) or (value.shape, value.dtype) != (like.shape, dtype):
        found = (
            f"{list(value.shape)} {value.dtype}" if isinstance(value, np.ndarray) else type(value)
        )
        raise refusal(f"{name} of shape {list(like.shape)} and {dtype}", f"{found}")
    is_right = ~np.isnan(value) if name == "alarm.threshold" else np.isfinite(value)
    if name not in _SIGNED:
        is_right &= value >= 0
    if not is_right.all():
        raise refusal(f"{name} finite, and not negative where that has no meaning", "others")
    return value
