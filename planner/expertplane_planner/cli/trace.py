"""`expertplane trace`: synthetic load to try policies on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from expertplane_client.console import COUNT, FILE, errors_in_one_line
from expertplane_planner.errors import PlannerError

from .progress import progress


if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from expertplane_planner.traces import LoadTrace


@click.command()
@click.option(
    "--preset",
    type=click.Choice(("dsv3", "glm52")),
    required=True,
    help="Model whose recorded load the trace is like.",
)
@click.option("--windows", "num_windows", type=COUNT, required=True, help="Windows to write.")
@click.option(
    "--samples",
    "num_samples",
    type=click.IntRange(min=1, max=256),
    default=16,
    show_default=True,
    help="Samples, or steps, of a window.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the trace."
)
@click.option(
    "--layers",
    "num_layers",
    type=click.IntRange(min=1, max=256),
    help="MoE layers; as many as the model has by default.",
)
@click.option(
    "--switch-at",
    "switch_window",
    type=click.IntRange(min=0),
    metavar="WINDOW",
    help="Window, counted from 0, with which the traffic mix turns over: what was rare becomes "
    "frequent.",
)
@click.option("--output", type=FILE, required=True, help="Where the trace goes (.npz).")
def trace(
    preset: str,
    num_windows: int,
    num_samples: int,
    seed: int,
    num_layers: int | None,
    switch_window: int | None,
    output: Path,
) -> None:
    """Write synthetic load with the statistics of recorded traffic.

    The file holds `samples`, tokens per window, sample, layer and logical expert, as `expertplane
    replay` reads it. Traffic is a mix of domains, each with its own hot experts; the mix takes a
    step of drift every 16 samples. The same options write the same bytes.
    """
    if output.suffix.lower() != ".npz":
        raise click.BadParameter(f"Expected a .npz file, got '{output}'.", param_hint="'--output'")
    if switch_window is not None and switch_window >= num_windows:
        raise click.BadParameter(
            f"Expected a window of the {num_windows} that are written, got {switch_window}.",
            param_hint="'--switch-at'",
        )
    with errors_in_one_line(PlannerError):
        from .replay_trace import write_trace

        switch = None if switch_window is None else switch_window * num_samples
        load, layers, experts = _load_trace(preset, num_layers, seed, switch)
        shape = (num_windows, num_samples, layers, experts)
        write_trace(output, _windows(load, num_windows, num_samples), shape)
    click.echo(f"wrote {output}: {' x '.join(map(str, shape))} windows, samples, layers, experts")


def _load_trace(
    preset: str, num_layers: int | None, seed: int, switch_at_sample: int | None
) -> tuple[LoadTrace, int, int]:
    import dataclasses

    from expertplane_planner.traces import PRESETS, SyntheticTrace
    from expertplane_planner.traces.regimes import SwitchingTrace

    config = PRESETS[preset]
    if num_layers is not None:
        config = dataclasses.replace(config, num_layers=num_layers)
    made = (
        SyntheticTrace(config, seed)
        if switch_at_sample is None
        else SwitchingTrace(config, seed, switch_at_sample=switch_at_sample)
    )
    return made, config.num_layers, config.num_logical_experts


def _windows(
    load: LoadTrace, num_windows: int, num_samples: int
) -> Iterator[npt.NDArray[np.int64]]:
    with progress(num_windows) as announce:
        for index, window in zip(range(num_windows), load.windows(num_samples), strict=False):
            announce(f"window {index + 1}")
            yield window
