"""`expertplane status`."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import click

from expertplane_client.console import (
    address_option,
    errors_in_one_line,
    json_option,
    print_json,
    print_table,
)

from .common import connect, new_table
from .rows import status_row


if TYPE_CHECKING:
    from expertplane.v1 import deployment_pb2


_COLUMNS = ("deployment", "mode", "head", "committed", "staging", "applied", "members")
_WIDTH = 80


@click.command()
@address_option
@json_option
def status(address: str, is_json: bool) -> None:
    """Show the deployments of a planner."""
    with errors_in_one_line(), connect(address) as client:
        deployments = client.list_deployments()
    rows = [status_row(deployment) for deployment in deployments]
    if is_json:
        print_json({"deployments": rows})
        return
    if not rows:
        click.echo("No deployments yet.")
        return
    table = new_table(*_COLUMNS, numbers=_COLUMNS[2:])
    for row in rows:
        table.add_row(
            row["name"],
            row["mode"],
            str(row["head"]),
            str(row["committed"]),
            str(row["staging"] or "-"),
            _applied(row),
            str(row["participants"]),
        )
    print_table(table)
    for deployment, row in zip(deployments, rows, strict=True):
        click.echo(_note(deployment, row))


def _applied(row: dict[str, Any]) -> str:
    """Returns the versions that the members have, as far as they differ."""
    lowest, highest = row["applied_min"], row["applied_max"]
    if not row["participants"]:
        return "-"
    return str(lowest) if lowest == highest else f"{lowest}-{highest}"


def _note(deployment: deployment_pb2.Deployment, row: dict[str, Any]) -> str:
    """Returns a line on what was decided last and what holds decisions back."""
    now = deployment.status
    parts = [row["last_decision"] or "nothing decided yet"]
    if now.hold_down_s > 0:
        parts.append(f"rests {now.hold_down_s:.0f} s more")
    if now.is_paused:
        parts.append(f"paused: {now.pause_comment}" if now.pause_comment else "paused")
    text = f"{deployment.name}: {'; '.join(parts)}"
    return textwrap.shorten(text, _WIDTH, placeholder=" ...")
