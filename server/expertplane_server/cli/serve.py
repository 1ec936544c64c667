"""`expertplane serve`: runs the planner in the foreground."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from expertplane_client.console import errors_in_one_line
from expertplane_server.config import ServerConfig
from expertplane_server.core.errors import ServiceError
from expertplane_server.telemetry.logs import configure_logs


if TYPE_CHECKING:
    from expertplane_server.app import App

_DEFAULTS = ServerConfig()


@click.command()
@click.option("--listen", default=_DEFAULTS.listen, show_default=True, help="gRPC address.")
@click.option(
    "--metrics",
    default=_DEFAULTS.metrics,
    show_default=True,
    help="/metrics address; '' for none.",
)
@click.option(
    "--store", default="", help="sqlite:///path; a file in your state directory by default."
)
@click.option(
    "--keep-plans",
    type=int,
    default=_DEFAULTS.keep_plans,
    show_default=True,
    help="Plans of each deployment to keep, at least 2.",
)
@click.option(
    "--device",
    default=_DEFAULTS.device,
    show_default=True,
    help="Where to plan: cpu, cuda:N (or do not start), auto (cuda:0 if it can be used).",
)
@click.option(
    "--reflection/--no-reflection",
    "has_reflection",
    envvar="EXPERTPLANE_SERVE_REFLECTION",
    default=_DEFAULTS.has_reflection,
    show_default=True,
    help="Let grpcurl and the like discover the services.",
)
@click.option(
    "--insecure-listen-any",
    "allows_insecure_listen",
    envvar="EXPERTPLANE_SERVE_INSECURE_LISTEN_ANY",
    is_flag=True,
    help="Allow --listen beyond loopback although nothing is encrypted or authenticated.",
)
@click.option(
    "--heartbeat-interval-s",
    type=float,
    default=_DEFAULTS.heartbeat_interval_s,
    show_default=True,
    help="Seconds between heartbeats; three missed ones mean lost.",
)
@click.option(
    "--report-interval-s",
    type=float,
    default=_DEFAULTS.report_interval_s,
    show_default=True,
    help="Seconds between load reports, as suggested to participants.",
)
@click.option(
    "--grace-s",
    type=float,
    default=_DEFAULTS.grace_s,
    show_default=True,
    help="Seconds that a drain waits for calls to end.",
)
@click.option(
    "--drain-delay-s",
    type=float,
    default=_DEFAULTS.drain_delay_s,
    show_default=True,
    help="Seconds between readiness going down and the drain.",
)
@click.option(
    "--solve-timeout-s",
    type=float,
    default=_DEFAULTS.solve_timeout_s,
    show_default=True,
    help="Seconds after which a solve is taken for lost.",
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
def serve(log_format: str, log_level: str, **settings: Any) -> None:
    """Run the planner until SIGTERM or Ctrl-C, then drain.

    Prints one line to stdout when it is ready; everything else goes to the log on stderr.

    Every option can come from the environment: --listen from EXPERTPLANE_SERVE_LISTEN, and so on.
    """
    with errors_in_one_line(ServiceError):
        config = ServerConfig(**settings)
        configure_logs(log_format, log_level)
        from expertplane_server.app import App

        asyncio.run(App(config).serve(_say_ready))


def _say_ready(app: App) -> None:
    """Tells the user, and whoever started the process, where to find it."""
    scrape = f", metrics on http://{app.metrics_address}/metrics" if app.metrics_address else ""
    click.echo(f"Expertplane is ready on {app.address}{scrape}")
