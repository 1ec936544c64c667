"""`expertplane plans`, `show`, `watch`, `diff` and `explain`: what was planned, and why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
import numpy as np

from expertplane_client.console import (
    FILE,
    address_option,
    errors_in_one_line,
    json_option,
    print_json,
    print_table,
)
from expertplane_client.errors import InputError
from expertplane_client.formats import check_placement_path, write_plan_npz

from .common import LIMIT, VERSION, VERSION_OR_START, connect, new_table
from .rows import balance_text, decision_row, diff_row, plan_description, plan_row


if TYPE_CHECKING:
    from pathlib import Path

    from expertplane_client.plan_diff import PlanDiff
    from expertplane_client.transfers import Transfers


@click.command()
@click.argument("deployment")
@click.option("--limit", type=LIMIT, default=20, show_default=True, help="The latest so many.")
@address_option
@json_option
def plans(deployment: str, limit: int, address: str, is_json: bool) -> None:
    """List the plans of DEPLOYMENT, newest first."""
    with errors_in_one_line(), connect(address) as client:
        rows = [plan_row(plan) for plan in client.list_plans(deployment, limit=limit)]
    if is_json:
        print_json({"plans": rows})
        return
    if not rows:
        click.echo(f"No plans of {deployment} yet.")
        return
    table = new_table(
        "version",
        "state",
        "reason",
        "balance",
        "moved",
        "sha256",
        numbers=("version", "balance", "moved"),
    )
    for row in rows:
        table.add_row(
            str(row["version"]),
            row["state"],
            row["reason"],
            balance_text(row["balancedness"]),
            str(row["moved_slots"]),
            row["sha256"][:12],
        )
    print_table(table)


@click.command()
@click.argument("deployment")
@click.option("--version", type=VERSION, help="Which one; the committed by default.")
@click.option("--latest", is_flag=True, help="The highest version, committed or not.")
@click.option("--output", type=FILE, help="Where the maps go (.npz).")
@address_option
@json_option
def show(
    deployment: str,
    version: int | None,
    latest: bool,
    output: Path | None,
    address: str,
    is_json: bool,
) -> None:
    """Show a plan of DEPLOYMENT, or write it to a file."""
    with errors_in_one_line():
        if version is not None and latest:
            raise InputError(f"Expected --version or --latest, got both: {version} and latest.")
        if output is not None:
            check_placement_path(output, output_format="npz")
    with errors_in_one_line(), connect(address) as client:
        plan = client.get_plan(deployment, version, alias="latest" if latest else None)
        if output is not None:
            write_plan_npz(output, plan.phy2log, plan.log2phy(), plan.logcnt())
    description = plan_description(plan)
    if is_json:
        print_json(description)
        return
    for name, value in description.items():
        if name != "per_layer":
            text = f"{value:.4f}" if isinstance(value, float) else str(value)
            text = balance_text(plan.balancedness) if name == "balancedness" else text
            click.echo(f"{name.replace('_', ' '):<20}{text}".rstrip())
    if output is not None:
        click.echo(f"wrote {output}")


@click.command()
@click.argument("deployment")
@click.option(
    "--from-version",
    type=VERSION_OR_START,
    default=0,
    help="Lowest version worth showing; what is committed by default.",
)
@click.option("--count", type=click.IntRange(min=1), help="Stop after so many plans.")
@address_option
@json_option
def watch(
    deployment: str, from_version: int, count: int | None, address: str, is_json: bool
) -> None:
    """Print the plans of DEPLOYMENT as they are committed; goes on when the planner was away."""
    with errors_in_one_line(), connect(address) as client:
        plans = client.watch_plans(
            deployment, from_version, on_wait=lambda why: click.echo(f"Waiting: {why}", err=True)
        )
        for number, plan in enumerate(plans, start=1):
            if is_json:
                click.echo(json.dumps(plan_description(plan)))
            else:
                click.echo(
                    f"version {plan.version} {plan.state} {plan.reason} "
                    f"balancedness {balance_text(plan.balancedness)} moved {plan.moved_slots} "
                    f"sha256 {plan.digest[:12]}"
                )
            if number == count:
                return


@click.command()
@click.argument("deployment")
@click.argument("from_version", metavar="FROM", type=VERSION_OR_START)
@click.argument("to_version", metavar="TO", type=VERSION_OR_START)
@address_option
@json_option
def diff(deployment: str, from_version: int, to_version: int, address: str, is_json: bool) -> None:
    """Show what changes from version FROM to TO; version 0 is the engine's start placement."""
    with errors_in_one_line(), connect(address) as client:
        found = client.diff_plans(deployment, from_version, to_version)
    if is_json:
        print_json(diff_row(deployment, from_version, to_version, found))
        return
    click.echo(f"{deployment}, version {from_version} to {to_version}: {_summary(found)}")
    changed = np.bincount(found.changes[:, 0], minlength=len(found.moved_slots_per_layer))
    if not changed.any():
        return
    table = new_table("row", "changed slots", "moved slots", "rounds")
    for column in table.columns:
        column.justify = "right"
    for row in np.flatnonzero(changed).tolist():
        moved = found.moved_slots_per_layer[row] if row < len(found.moved_slots_per_layer) else 0
        table.add_row(str(row), str(changed[row]), str(moved), _num_rounds(found.transfers, row))
    print_table(table)


def _summary(found: PlanDiff) -> str:
    if not len(found.changes):
        return "the same placement"
    parts = [f"{len(found.changes)} changed slots", f"{found.moved_slots} moved"]
    transfers = found.transfers
    if transfers is not None and transfers.total_bytes:
        parts.append(f"{_size(transfers.total_bytes)} in about {transfers.estimated_s:.3g} s")
    return ", ".join(parts)


def _size(num_bytes: int) -> str:
    for unit, name in ((10**9, "GB"), (10**6, "MB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.1f} {name}"
    return f"{num_bytes} bytes"


def _num_rounds(transfers: Transfers | None, row: int) -> str:
    if transfers is None:
        return "-"
    rounds = transfers.table[transfers.table[:, 0] == row, 4]
    return str(len(np.unique(rounds)))


@click.command()
@click.argument("deployment")
@click.option("--limit", type=LIMIT, default=20, show_default=True, help="The latest so many.")
@address_option
@json_option
def explain(deployment: str, limit: int, address: str, is_json: bool) -> None:
    """Show what the planner decided about DEPLOYMENT, and why, oldest first."""
    with errors_in_one_line(), connect(address) as client:
        decisions = client.explain_decisions(deployment, limit=limit)
    rows = [decision_row(decision) for decision in decisions]
    if is_json:
        print_json({"decisions": rows})
        return
    for row in rows:
        plan = f" v{row['plan_version']}" if row["plan_version"] else ""
        at = (row["decided_at"] or "-")[:19].replace("T", " ")
        click.secho(f"#{row['sequence']} {at} {row['reason']}{plan}", bold=True)
        click.echo(f"    {row['message']}")
    if not rows:
        click.echo("No decisions yet.")
