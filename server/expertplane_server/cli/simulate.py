"""`expertplane simulate`: serving nodes that a planner can be tried with."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from expertplane_client.console import address_option, errors_in_one_line, group_options
from expertplane_client.formats import INPUT_FORMATS, parse_layer_ids
from expertplane_server.cli.display import Display


if TYPE_CHECKING:
    from expertplane_server.cli.fleet import FleetConfig, WindowResult

_COUNT = click.IntRange(min=1)


@click.command()
@address_option
@click.option("--deployment", default="default/simulated", show_default=True, help="Its name.")
@click.option(
    "--participants",
    "num_participants",
    type=_COUNT,
    default=4,
    show_default=True,
    help="Simulated serving nodes.",
)
@click.option(
    "--ranks",
    "num_ranks",
    type=_COUNT,
    default=32,
    show_default=True,
    help="Expert-parallel ranks.",
)
@click.option(
    "--nodes",
    "num_nodes",
    type=_COUNT,
    default=1,
    show_default=True,
    help="Domains of fast links.",
)
@click.option(
    "--slots", "num_slots", type=_COUNT, default=288, show_default=True, help="Slots per layer."
)
@group_options
@click.option(
    "--spill",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Replicas per layer that may leave their node, in soft-hierarchical mode.",
)
@click.option(
    "--policy",
    default="",
    help="Algorithm that makes the plans; the planner's default if empty.",
)
@click.option(
    "--move-budget",
    "max_moved_slots",
    type=click.IntRange(min=0, max=65536),
    help="Slots of each layer whose rank may have to fetch an expert, at most; no limit by "
    "default.",
)
@click.option(
    "--rollout",
    type=click.Choice(("advisory", "coordinated", "shadow")),
    default="advisory",
    show_default=True,
    help="How plans reach the nodes: at once, staged by all before any switches, not at all.",
)
@click.option(
    "--load", default="synthetic", show_default=True, help="A recording, or 'synthetic'."
)
@click.option(
    "--input-format",
    type=click.Choice(INPUT_FORMATS),
    help="What the recording, a file or a folder, is; found out by default.",
)
@click.option("--preset", default="dsv3", show_default=True, help="Synthetic model: dsv3, glm52.")
@click.option("--layer-ids", help="Rows of the recording to keep, such as 3-60.")
@click.option(
    "--windows", "num_windows", type=_COUNT, default=10, show_default=True, help="To serve."
)
@click.option(
    "--samples-per-window",
    type=click.IntRange(1, 64),
    default=16,
    show_default=True,
    help="Samples between two decisions.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the load."
)
@click.option("--json", "is_json", is_flag=True, help="Print JSON at the end instead of a table.")
def simulate(
    load: str,
    input_format: str | None,
    preset: str,
    layer_ids: str | None,
    num_windows: int,
    is_json: bool,
    **fleet: Any,
) -> None:
    """Run simulated serving nodes against a planner and show what its plans do.

    The nodes route recorded or synthetic load, report it, and switch to the plans that they get.
    The deployment is created when it does not exist and stays when the simulation ends.
    """
    with errors_in_one_line():
        from expertplane_server.cli.fleet import FleetConfig
        from expertplane_server.cli.loads import open_load

        config = FleetConfig(**fleet)
        windows, source = open_load(
            load,
            input_format=input_format,
            preset=preset,
            layer_ids=parse_layer_ids(layer_ids) if layer_ids else None,
            samples_per_window=config.samples_per_window,
            seed=config.seed,
        )
        display = None if is_json else Display()
        if display is not None:
            display.say(
                f"{config.num_participants} simulated nodes, {config.num_ranks} ranks, "
                f"{config.num_slots} slots, {source}, planner at {config.address}"
            )
        results = asyncio.run(run_fleet(config, windows, num_windows, display))
        if display is None:
            click.echo(json.dumps({"windows": [asdict(result) for result in results]}))
        else:
            display.summary(results)


async def run_fleet(
    config: FleetConfig, windows: Any, num_windows: int, display: Display | None
) -> list[WindowResult]:
    """Serves all windows, showing each, and returns what they showed."""
    from expertplane_server.cli.fleet import Fleet

    results = []
    async with Fleet(config, windows) as fleet:
        if display is not None:
            display.header()
        async for result in fleet.run(num_windows):
            results.append(result)
            if display is not None:
                display.window(result)
    return results
