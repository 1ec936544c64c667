"""`expertplane demo`: a planner and simulated nodes, from nothing to a table."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from expertplane_client.console import errors_in_one_line
from expertplane_server.cli.display import Display
from expertplane_server.config import ServerConfig
from expertplane_server.core.errors import ServiceError
from expertplane_server.telemetry.logs import configure_logs


if TYPE_CHECKING:
    from expertplane_server.cli.fleet import WindowResult

_SAMPLES_PER_WINDOW = 16


@click.command()
@click.option(
    "--windows",
    "num_windows",
    type=click.IntRange(2, 100),
    default=10,
    show_default=True,
    help="Windows of load to serve.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the load."
)
def demo(num_windows: int, seed: int) -> None:
    """Start a planner, run four simulated nodes against it, show what its plans do, clean up.

    Needs no network beyond loopback, no GPU and no files; takes well under a minute.
    """
    configure_logs("text", "WARNING")
    display = Display()
    start_s = time.monotonic()
    with errors_in_one_line(ServiceError), tempfile.TemporaryDirectory() as folder:
        display.say("Starting a planner on a free loopback port, its store in a temporary folder")
        results = asyncio.run(_run(Path(folder), num_windows, seed, display))
        display.summary(results)
    program = "expertplane" if shutil.which("expertplane") else sys.argv[0]
    display.say(f"Done in {time.monotonic() - start_s:.0f} s. Next: {program} serve")


async def _run(folder: Path, num_windows: int, seed: int, display: Display) -> list[WindowResult]:
    """Starts the planner, serves all windows, drains."""
    from expertplane_server.app import App
    from expertplane_server.cli.fleet import FleetConfig
    from expertplane_server.cli.loads import open_load
    from expertplane_server.cli.simulate import run_fleet

    config = ServerConfig(
        listen="127.0.0.1:0",
        metrics="",
        store=f"sqlite:///{folder / 'planner.db'}",
        report_interval_s=0.05,
        grace_s=2.0,
    )
    app = App(config)
    try:
        await app.startup()
        display.say(f"Planner ready on {app.address}")
        windows, source = open_load(
            "synthetic",
            preset="dsv3",
            layer_ids=None,
            samples_per_window=_SAMPLES_PER_WINDOW,
            seed=seed,
        )
        fleet = FleetConfig(
            address=app.address,
            deployment="demo/dsv3",
            num_participants=4,
            num_ranks=32,
            num_nodes=1,
            num_slots=288,
            num_expert_groups=1,
            mode="auto",
            spill=0,
            policy="",
            samples_per_window=_SAMPLES_PER_WINDOW,
            seed=seed,
        )
        display.say(f"4 nodes, 32 ranks, 288 slots, 58 layers x 256 experts, {source}")
        results = await run_fleet(fleet, windows, num_windows, display)
        await app.drain()
    finally:
        await app.shutdown()
    return results
