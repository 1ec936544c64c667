"""`expertplane sidecar`: speaks for an engine, in the foreground. Needs the extra `sidecar`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from expertplane_client.console import errors_in_one_line, require_packages


# Before anything is imported that needs them, so that whoever lacks them is told what to install.
require_packages("prometheus_client", "grpc_health")

from .config import load_config  # noqa: E402
from .logs import configure_logs  # noqa: E402


if TYPE_CHECKING:
    from .app import SidecarApp
    from .config import SidecarConfig


@click.command()
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Settings, in TOML; in YAML where the name ends so.",
)
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True
)
@click.option(
    "--log-level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]),
    default="INFO",
    show_default=True,
)
def sidecar(path: Path, log_format: str, log_level: str) -> None:
    """Speak for an engine: hand its load to the planner, and the planner's plans to it.

    Keeps the last known good plan and hands it to an engine that restarts, planner or no planner.
    Runs until SIGTERM or Ctrl-C. Prints one line to stdout when an engine may come; everything
    else goes to the log on stderr. docs/sidecar.md tells how an engine talks to it.
    """
    with errors_in_one_line():
        config = load_config(path)
        configure_logs(log_format, log_level)
        asyncio.run(_serve(config))


async def _serve(config: SidecarConfig) -> None:
    # Its grpc must not be imported before the logs are configured.
    from .app import SidecarApp

    await SidecarApp(config).serve(_say_ready)


def _say_ready(app: SidecarApp) -> None:
    metrics = f", metrics on http://{app.metrics_address}/metrics" if app.metrics_address else ""
    health = f", health on {app.health_address}" if app.health_address else ""
    click.echo(f"Expertplane sidecar is ready{metrics}{health}")
