"""The load that simulated nodes route."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from expertplane_client import InputError
from expertplane_client.formats import read_load


if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import numpy.typing as npt


def open_load(
    load: str,
    *,
    preset: str,
    layer_ids: Sequence[int] | None,
    samples_per_window: int,
    seed: int,
    input_format: str | None = None,
) -> tuple[Iterator[npt.NDArray[np.int64]], str]:
    """Returns endless windows of load, [samples, layers, experts] tokens, and what they are.

    Args:
        load: "synthetic", or a recording that the samples are drawn around.
        preset: which synthetic model.
        layer_ids: rows of the recording to keep; None keeps all.
        samples_per_window: samples in each window.
        seed: seed of the noise.
        input_format: what the recording is, one of `INPUT_FORMATS`; None finds out.

    Raises:
        FormatError: the recording cannot be read.
        InputError: there is no such preset.
    """
    from expertplane_planner.traces import PRESETS, LoadTrace, RecordedTrace, SyntheticTrace

    trace: LoadTrace
    if load == "synthetic":
        if preset not in PRESETS:
            raise InputError(f"Expected one of {', '.join(sorted(PRESETS))}, got {preset!r}.")
        trace = SyntheticTrace(PRESETS[preset], seed)
        return trace.windows(samples_per_window), f"synthetic {preset} load"
    recording = read_load(Path(load), layer_ids, input_format=input_format)
    trace = RecordedTrace(recording.weight(), seed)
    return trace.windows(samples_per_window), f"load recorded in {Path(load).name}"
