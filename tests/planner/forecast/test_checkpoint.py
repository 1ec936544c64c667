"""A forecast survives its process to the byte, and damaged bytes are refused."""

from __future__ import annotations

import contextlib
import io
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from expertplane_planner import InvalidInputError
from expertplane_planner.forecast import Forecast, ForecastParams

from .loads import small_trace, windows


DENSE = ForecastParams(recent_windows=2)
FACTORED = ForecastParams(shrinkage=0.1, max_bytes=4 * 2 * 16 * 6)


def _observed(params: ForecastParams = DENSE, num_windows: int = 3) -> Forecast:
    forecast = Forecast(2, 16, params=params)
    trace = small_trace(seed=0, num_layers=2, num_logical_experts=16)
    for window in windows(trace, num_windows, 4):
        forecast.observe(window)
    return forecast


@pytest.mark.parametrize("params", [DENSE, FACTORED], ids=["dense", "factored"])
@pytest.mark.parametrize("num_before", [0, 1, 12])
def test_a_restored_forecast_goes_on_as_if_nothing_had_been(
    params: ForecastParams, num_before: int
) -> None:
    """Through bytes and through a state: the same bytes as if uninterrupted, alarms included."""
    trace = small_trace(seed=0, num_layers=2, num_logical_experts=16)
    straight = Forecast(2, 16, params=params)
    for window in windows(trace, num_before, 4):
        straight.observe(window)
    by_bytes = Forecast.from_bytes(straight.to_bytes())
    by_state = Forecast.from_state(straight.state())

    trace.switch()
    for window in windows(trace, 4, 4):
        for forecast in (straight, by_bytes, by_state):
            forecast.observe(window)

    assert by_bytes.params == params
    assert by_bytes.to_bytes() == by_state.to_bytes() == straight.to_bytes()
    assert torch.equal(by_bytes.predict().mean, straight.predict().mean)
    assert by_bytes.num_windows == num_before + 4


def test_a_state_is_a_copy() -> None:
    """Neither the next window nor whoever holds the state changes the other."""
    forecast = _observed()
    state = forecast.state()
    restored = Forecast.from_state(state)
    before = forecast.to_bytes()

    for value in state.values():
        if isinstance(value, np.ndarray):
            value.fill(0)

    assert forecast.to_bytes() == restored.to_bytes() == before


def test_numpy_reads_a_checkpoint() -> None:
    """The bytes are an npz archive without objects."""
    forecast = _observed()

    with np.load(io.BytesIO(forecast.to_bytes()), allow_pickle=False) as archive:
        assert set(archive.files) == set(forecast.state())
        assert archive["version"] == 2
        assert archive["moment.second"].shape == (2, 16, 16)
        assert archive["common.swings"].shape == (2, 16, 16)


@settings(max_examples=75, deadline=None)
@given(st.data())
def test_damage_is_refused_or_harmless(data: st.DataObject) -> None:
    """Any byte changed or any tail cut off: refused as a checkpoint, or nothing is different."""
    forecast = _observed(FACTORED)
    checkpoint = bytearray(forecast.to_bytes())
    at = data.draw(st.integers(0, len(checkpoint) - 1))
    if data.draw(st.booleans()):
        checkpoint[at] ^= data.draw(st.integers(1, 255))
    else:
        del checkpoint[at:]

    with contextlib.suppress(InvalidInputError):
        restored = Forecast.from_bytes(bytes(checkpoint))
        assert restored.to_bytes() == forecast.to_bytes()


def _archive(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _array(values: object, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values), allow_pickle=allow_pickle)
    return buffer.getvalue()


HUGE_HEADER = _array(np.zeros(1)).replace(b"(1,), ", b"(9999999999,), ".ljust(6)[:15])


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        (b"", "an undamaged checkpoint"),
        (b"PK" * 100, "an undamaged checkpoint"),
        (_archive({"version.npy": bytes(10**7)}, zipfile.ZIP_DEFLATED), "stored as they are"),
        (_archive({str(i): b"" for i in range(65)}), "at most 64 arrays, got 65"),
        (_archive({"version.npy": _array([{}], allow_pickle=True)}), "an array of |O"),
        (_archive({"version.npy": _array(np.zeros(3))[:-1]}), "an array of 24 bytes in 23"),
        (_archive({"version.npy": HUGE_HEADER}), "an undamaged checkpoint"),
        (_archive({"version.npy": _array(1)}), "version 2, got 1"),
        (_archive({"version.npy": _array([1, 1])}), "version 2, got array"),
        (_archive({}), "version 2, got None"),
        (_archive({"version.npy": _array(2)}), "num_layers in .*, got None"),
    ],
)
def test_bytes_that_are_no_checkpoint_are_refused(checkpoint: bytes, message: str) -> None:
    """Neither bombs nor pickles nor other versions get past the reader."""
    with pytest.raises(InvalidInputError, match=message) as caught:
        Forecast.from_bytes(checkpoint)

    assert caught.value.field == "checkpoint"


def test_a_checkpoint_has_a_bound() -> None:
    """One byte more than allowed is refused unread."""
    checkpoint = _observed().to_bytes()

    Forecast.from_bytes(checkpoint, max_bytes=len(checkpoint))
    with pytest.raises(InvalidInputError, match=f"at most {len(checkpoint) - 1} bytes"):
        Forecast.from_bytes(checkpoint, max_bytes=len(checkpoint) - 1)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("version", 1, "version 2, got 1"),
        ("num_layers", 10**9, "num_layers in"),
        ("num_layers", True, "num_layers in"),
        ("num_logical_experts", 17, r"of shape \[1, 2, 17\]|of shape \[2, 2, 17\]"),
        ("num_windows", -1, "num_windows in"),
        ("params.recent_windows", 3, "means.recent_share of shape"),
        ("params.max_bytes", 1, "max_bytes of at least"),
        ("params.alarm_sds", "4", "a number params.alarm_sds"),
        ("params.half_life_windows", 0.0, "half_life_windows in"),
        ("moment.second", np.zeros((2, 16, 16)), "and float32, got .* float64"),
        ("means.weight", np.array([1.0, np.nan]), "means.weight finite"),
        ("means.weight", np.array([1.0, -1.0]), "means.weight finite"),
        ("means.weight", [1.0, 1.0], "means.weight of shape"),
        ("means.recent_share", np.ones((2, 2, 16)), "a state that predicts: Expected shares"),
        ("moment.second", -np.ones((2, 16, 16), np.float32), "non-negative variances"),
        ("unknown", 1, "Expected the names"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(name: str, value: object, message: str) -> None:
    """Every number and array is checked against what this version would have written."""
    state = _observed().state()
    state[name] = value  # type: ignore[assignment]  # wrong on purpose

    with pytest.raises(InvalidInputError, match=message) as caught:
        Forecast.from_state(state)

    assert caught.value.field == "checkpoint"


def test_a_state_that_lacks_something_is_refused() -> None:
    """Whatever name is missing."""
    whole = _observed().state()
    for name in whole:
        with pytest.raises(InvalidInputError):
            Forecast.from_state({key: whole[key] for key in whole if key != name})
