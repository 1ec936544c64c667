"""`expertplane publish`, `rebalance`, `rollback`, `pause` and `resume`: an operator's orders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from expertplane_client.console import (
    FILE,
    address_option,
    errors_in_one_line,
    json_option,
    model_class_option,
    print_json,
)
from expertplane_client.errors import FormatError
from expertplane_client.formats import PLACEMENT_FORMATS, PlacementMap, read_placement

from .common import VERSION_OR_START, connect, expected_head_option, request_id_option
from .rows import decision_row, pause_row, plan_row


if TYPE_CHECKING:
    from pathlib import Path

    from expertplane.v1 import deployment_pb2, plan_pb2


_comment_option = click.option(
    "--comment", default="", metavar="TEXT", help="Why, for people; at most 1024 characters."
)


@click.command()
@click.argument("deployment")
@click.argument("file", type=FILE)
@click.option(
    "--input-format",
    type=click.Choice(PLACEMENT_FORMATS),
    help="What FILE is; found out by default.",
)
@model_class_option
@_comment_option
@expected_head_option
@request_id_option
@address_option
@json_option
def publish(
    deployment: str,
    file: Path,
    input_format: str | None,
    model_class: str | None,
    comment: str,
    expected_head: int | None,
    request_id: str | None,
    address: str,
    is_json: bool,
) -> None:
    """Publish the placement in FILE as the next plan of DEPLOYMENT."""
    with errors_in_one_line(), connect(address) as client:
        spec = client.get_deployment(deployment).spec
        placement = _read(file, spec, input_format, model_class)
        plan = client.publish_plan(
            deployment,
            placement.phy2log,
            comment=comment,
            request_id=request_id,
            expected_head=expected_head,
        )
    _tell_plan(f"published {file} as", deployment, plan, is_json)


@click.command()
@click.argument("deployment")
@expected_head_option
@request_id_option
@address_option
@json_option
def rebalance(
    deployment: str,
    expected_head: int | None,
    request_id: str | None,
    address: str,
    is_json: bool,
) -> None:
    """Have the planner decide about DEPLOYMENT now, whatever cool-down, rest or pause say."""
    with errors_in_one_line(), connect(address) as client:
        decision = client.rebalance(deployment, request_id=request_id, expected_head=expected_head)
    row = decision_row(decision)
    if is_json:
        print_json(row)
        return
    plan = f" version {row['plan_version']}" if row["plan_version"] else ""
    click.echo(f"{deployment}: {row['reason']}{plan}. {_one_line(row['message'])}".rstrip())


@click.command()
@click.argument("deployment")
@click.option(
    "--to",
    "to_version",
    type=VERSION_OR_START,
    required=True,
    help="Version whose content comes back; 0 is the engine's start placement.",
)
@expected_head_option
@request_id_option
@address_option
@json_option
def rollback(
    deployment: str,
    to_version: int,
    expected_head: int | None,
    request_id: str | None,
    address: str,
    is_json: bool,
) -> None:
    """Publish the content of an earlier version of DEPLOYMENT under a new version."""
    with errors_in_one_line(), connect(address) as client:
        plan = client.roll_back(
            deployment, to_version, request_id=request_id, expected_head=expected_head
        )
    _tell_plan(f"rolled back to version {to_version} as", deployment, plan, is_json)


@click.command()
@click.argument("deployment")
@_comment_option
@request_id_option
@address_option
@json_option
def pause(
    deployment: str, comment: str, request_id: str | None, address: str, is_json: bool
) -> None:
    """Stop the planner from publishing plans of DEPLOYMENT by itself."""
    with errors_in_one_line(), connect(address) as client:
        found = client.pause(deployment, comment=comment, request_id=request_id)
    row = pause_row(found)
    if is_json:
        print_json(row)
        return
    why = f": {_one_line(row['comment'])}" if row["comment"] else ""
    click.echo(f"paused {deployment} at version {row['committed']}{why}")


@click.command()
@click.argument("deployment")
@request_id_option
@address_option
@json_option
def resume(deployment: str, request_id: str | None, address: str, is_json: bool) -> None:
    """Let the planner publish plans of DEPLOYMENT by itself again."""
    with errors_in_one_line(), connect(address) as client:
        found = client.resume(deployment, request_id=request_id)
    row = pause_row(found)
    if is_json:
        print_json(row)
        return
    click.echo(f"resumed {deployment} at version {row['committed']}")


def _read(
    file: Path,
    spec: deployment_pb2.DeploymentSpec,
    input_format: str | None,
    model_class: str | None,
) -> PlacementMap:
    """Returns a file's placement when it is one for a deployment.

    Raises:
        FormatError: the file cannot be read, or is about other layers, experts or slots.
    """
    topology = spec.topology
    num_ranks = topology.num_nodes * topology.ranks_per_node
    placement = read_placement(
        file,
        num_logical_experts=spec.num_logical_experts,
        num_ranks=num_ranks,
        layer_ids=spec.layer_ids,
        input_format=input_format,
        model_class=model_class,
    )
    expected = [len(spec.layer_ids), num_ranks * topology.slots_per_rank]
    if list(placement.phy2log.shape) != expected:
        raise FormatError(
            f"Expected {file} to place {expected[0]} layers on {expected[1]} slots, "
            f"got {list(placement.phy2log.shape)}."
        )
    return placement


def _tell_plan(done: str, deployment: str, plan: plan_pb2.PlanMetadata, is_json: bool) -> None:
    row: dict[str, Any] = plan_row(plan)
    if is_json:
        print_json(row)
        return
    click.echo(
        f"{done} version {row['version']} of {deployment}: {row['state']}, "
        f"{row['moved_slots']} moved slots, sha256 {row['sha256'][:12]}"
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())
