"""`expertplane deployments list`, `apply` and `delete`: what is planned for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from expertplane_client.applying import Applied, apply_deployment
from expertplane_client.console import (
    FILE,
    address_option,
    errors_in_one_line,
    json_option,
    print_json,
    print_table,
)
from expertplane_client.errors import InputError
from expertplane_client.spec_document import document_of
from expertplane_client.spec_file import read_deployments

from .common import connect, new_table, request_id_option


if TYPE_CHECKING:
    from pathlib import Path

    from expertplane.v1 import deployment_pb2


_COLUMNS = ("deployment", "policy", "layers", "experts", "nodes", "ranks", "slots", "gen")


@click.group()
def deployments() -> None:
    """List, create, change and delete deployments."""


@deployments.command("list")
@address_option
@json_option
def list_(address: str, is_json: bool) -> None:
    """List what the planner plans for."""
    with errors_in_one_line(), connect(address) as client:
        found = client.list_deployments()
    if is_json:
        print_json({"deployments": [_row(deployment) for deployment in found]})
        return
    if not found:
        click.echo("No deployments yet.")
        return
    table = new_table(*_COLUMNS, numbers=_COLUMNS[2:])
    for deployment in found:
        spec, topology = deployment.spec, deployment.spec.topology
        num_ranks = topology.num_nodes * topology.ranks_per_node
        numbers = (
            len(spec.layer_ids),
            spec.num_logical_experts,
            topology.num_nodes,
            num_ranks,
            num_ranks * topology.slots_per_rank,
            deployment.generation,
        )
        table.add_row(deployment.name, spec.policy.name or "-", *map(str, numbers))
    print_table(table)


@deployments.command()
@click.option(
    "-f",
    "--file",
    type=FILE,
    required=True,
    help="One deployment, or several (.toml, .yaml); see docs/deployment.example.toml.",
)
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Only tell what would be done.")
@request_id_option
@address_option
@json_option
def apply(
    file: Path, is_dry_run: bool, request_id: str | None, address: str, is_json: bool
) -> None:
    """Create the deployments in a file, or change those that differ from it."""
    done: list[Applied] = []
    with errors_in_one_line():
        wanted = read_deployments(file)
        if request_id is not None and len(wanted) > 1:
            raise InputError(
                f"Expected one deployment in {file} with --request-id, got {len(wanted)}."
            )
        try:
            with connect(address) as client:
                for name, spec in wanted:
                    one = apply_deployment(
                        client, name, spec, is_dry_run=is_dry_run, request_id=request_id
                    )
                    done.append(one)
                    if not is_json:
                        _tell(one, is_dry_run)
        finally:
            # What was done before a failure is told too.
            if is_json:
                rows = [_applied_row(one) for one in done]
                print_json({"is_dry_run": is_dry_run, "deployments": rows})


@deployments.command()
@click.argument("deployment", metavar="NAME")
@click.option("--etag", default="", help="Delete nothing newer than what was read.")
@request_id_option
@address_option
@json_option
def delete(
    deployment: str, etag: str, request_id: str | None, address: str, is_json: bool
) -> None:
    """Delete the deployment NAME with its plans; participants keep the plan that they have."""
    with errors_in_one_line(), connect(address) as client:
        client.delete_deployment(deployment, etag=etag, request_id=request_id)
    if is_json:
        print_json({"name": deployment, "action": "deleted"})
        return
    click.echo(f"deleted {deployment}")


def _row(deployment: deployment_pb2.Deployment) -> dict[str, Any]:
    return {
        "name": deployment.name,
        "generation": deployment.generation,
        "etag": deployment.etag,
        "spec": document_of(deployment.spec),
    }


def _applied_row(one: Applied) -> dict[str, Any]:
    return {
        "name": one.name,
        "action": one.action,
        "generation": one.generation,
        "etag": one.etag,
        "changes": {path: {"from": old, "to": new} for path, (old, new) in one.changes.items()},
    }


def _tell(one: Applied, is_dry_run: bool) -> None:
    would_be = "would be " if is_dry_run and one.action != "unchanged" else ""
    generation = f", generation {one.generation}" if one.generation and not would_be else ""
    click.echo(f"{one.name} {would_be}{one.action}{generation}")
    for path, (old, new) in one.changes.items():
        click.echo(f"  {path}: {_text(old)} -> {_text(new)}")


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)
