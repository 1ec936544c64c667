"""The client's commands: ask a running planner. Needs click and rich."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from expertplane.v1 import decision_pb2, plan_pb2

from .balance import balance
from .blocking import BlockingClient
from .console import (
    SOFT_MODE,
    LoadOptions,
    MoveOptions,
    SolvedPlan,
    address_option,
    deliver,
    errors_in_one_line,
    foreign_replicas,
    json_option,
    load_options,
    move_options,
    print_table,
)
from .formats import check_placement_path, write_plan_npz
from .names import bare_name


if TYPE_CHECKING:
    from expertplane.v1 import deployment_pb2

    from .formats import Recording
    from .plan import Plan


_LIMIT = click.IntRange(min=1, max=1000)


@click.command()
@address_option
@json_option
def status(address: str, is_json: bool) -> None:
    """Show the deployments of a planner."""
    with errors_in_one_line(), _connect(address) as client:
        rows = [_status_row(deployment) for deployment in client.list_deployments()]
    if is_json:
        _print_json({"deployments": rows})
        return
    table = _table("deployment", "head", "committed", "epoch", "participants", "last decision")
    for row in rows:
        table.add_row(*(str("-" if value is None else value) for value in row.values()))
    print_table(table)
    if not rows:
        click.echo("No deployments yet.")


@click.command()
@click.argument("deployment")
@click.option("--limit", type=_LIMIT, default=20, show_default=True, help="The latest so many.")
@address_option
@json_option
def plans(deployment: str, limit: int, address: str, is_json: bool) -> None:
    """List the plans of DEPLOYMENT, newest first."""
    with errors_in_one_line(), _connect(address) as client:
        rows = [_plan_row(plan) for plan in client.list_plans(deployment, limit=limit)]
    if is_json:
        _print_json({"plans": rows})
        return
    table = _table("version", "state", "reason", "balancedness", "moved slots", "sha256")
    for row in rows:
        table.add_row(
            str(row["version"]),
            row["state"],
            row["reason"],
            f"{row['balancedness']:.4f}",
            str(row["moved_slots"]),
            row["sha256"][:12],
        )
    print_table(table)


@click.command()
@click.argument("deployment")
@click.option("--version", type=click.IntRange(min=1), help="Which one; the committed by default.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the maps go (.npz).",
)
@address_option
@json_option
def show(
    deployment: str, version: int | None, output: Path | None, address: str, is_json: bool
) -> None:
    """Show a plan of DEPLOYMENT, or write it to a file."""
    with errors_in_one_line():
        if output is not None:
            check_placement_path(output, output_format="npz")
    with errors_in_one_line(), _connect(address) as client:
        plan = client.get_plan(deployment, version)
        if output is not None:
            write_plan_npz(output, plan.phy2log, plan.log2phy(), plan.logcnt())
    description = _plan_description(plan)
    if is_json:
        _print_json(description)
        return
    for name, value in description.items():
        if name != "per_layer":
            text = f"{value:.4f}" if isinstance(value, float) else str(value)
            click.echo(f"{name.replace('_', ' '):<20}{text}")
    if output is not None:
        click.echo(f"wrote {output}")


@click.command()
@click.argument("deployment")
@click.option(
    "--from-version",
    type=click.IntRange(min=0),
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
    with errors_in_one_line(), _connect(address) as client:
        plans = client.watch_plans(
            deployment, from_version, on_wait=lambda why: click.echo(f"Waiting: {why}", err=True)
        )
        for number, plan in enumerate(plans, start=1):
            if is_json:
                click.echo(json.dumps(_plan_description(plan)))
            else:
                click.echo(
                    f"version {plan.version} {plan.state} {plan.reason} "
                    f"balancedness {plan.balancedness:.4f} moved {plan.moved_slots} "
                    f"sha256 {plan.digest[:12]}"
                )
            if number == count:
                return


@click.command()
@click.argument("deployment")
@click.option("--limit", type=_LIMIT, default=20, show_default=True, help="The latest so many.")
@address_option
@json_option
def explain(deployment: str, limit: int, address: str, is_json: bool) -> None:
    """Show what the planner decided about DEPLOYMENT, and why, oldest first."""
    with errors_in_one_line(), _connect(address) as client:
        rows = [
            _decision_row(decision)
            for decision in client.explain_decisions(deployment, limit=limit)
        ]
    if is_json:
        _print_json({"decisions": rows})
        return
    for row in rows:
        plan = f" v{row['plan_version']}" if row["plan_version"] else ""
        at = (row["decided_at"] or "-")[:19].replace("T", " ")
        click.secho(f"#{row['sequence']} {at} {row['reason']}{plan}", bold=True)
        click.echo(f"    {row['message']}")
    if not rows:
        click.echo("No decisions in the planner's present term.")


@click.command("compute-plan")
@load_options()
@move_options
@address_option
def compute_plan(options: LoadOptions, moves: MoveOptions, address: str) -> None:
    """Let a running planner plan for LOADFILE; it stores nothing."""
    with errors_in_one_line(), _connect(address) as client:
        recording = options.read()
        deliver(options, recording, _solve(client, options, moves, recording))


def _solve(
    client: BlockingClient, options: LoadOptions, moves: MoveOptions, recording: Recording
) -> SolvedPlan:
    incumbent = moves.read_incumbent(options, recording)
    plan = client.compute_plan(
        recording.samples,
        num_nodes=options.num_nodes,
        num_ranks=options.num_ranks,
        num_slots=options.num_slots,
        masked_ranks=options.masked_ranks or (),
        rank_capacities=options.rank_capacities,
        num_expert_groups=options.num_expert_groups,
        mode=options.mode,
        policy=options.policy,
        spill=options.spill or 0,
        seed=options.seed,
        policy_parameters=moves.parameters,
        incumbent=incumbent,
        max_moved_slots_per_layer=moves.max_moved_slots_per_layer,
    )
    # Scored here, so that the figures are about this very recording whatever the planner tells.
    after = balance(
        recording.weight(),
        plan.phy2log,
        options.num_ranks,
        rank_capacities=options.rank_capacities,
    )
    return SolvedPlan(
        phy2log=plan.phy2log,
        policy=plan.policy,
        parameters=plan.parameters,
        mode=plan.mode,
        seed=plan.seed,
        balancedness=after.balancedness,
        per_layer=after.per_layer,
        solve_s=plan.solve_s,
        digest=plan.digest,
        incumbent=incumbent,
        moved_slots=None if incumbent is None else plan.moved_slots,
        foreign_replicas=(
            foreign_replicas(
                plan.phy2log,
                num_logical_experts=recording.num_logical_experts,
                num_expert_groups=options.num_expert_groups,
                num_nodes=options.num_nodes,
            )
            if plan.mode == SOFT_MODE
            else None
        ),
    )


def _connect(address: str) -> BlockingClient:
    # Somebody at a terminal wants to know at once that nobody is there.
    return BlockingClient(address, wait_for_ready=False)


def _status_row(deployment: deployment_pb2.Deployment) -> dict[str, Any]:
    now = deployment.status
    last_decision = (
        bare_name(decision_pb2.DecisionReason, now.last_decision.reason)
        if now.HasField("last_decision")
        else None
    )
    return {
        "name": deployment.name,
        "head": now.head_version,
        "committed": now.committed_version,
        "epoch": now.epoch,
        "participants": now.num_participants,
        "last_decision": last_decision,
    }


def _plan_row(plan: plan_pb2.PlanMetadata) -> dict[str, Any]:
    return {
        "version": plan.version,
        "epoch": plan.epoch,
        "generation": plan.generation,
        "parent_version": plan.parent_version,
        "state": bare_name(plan_pb2.PlanState, plan.state),
        "reason": bare_name(decision_pb2.DecisionReason, plan.reason),
        "policy": plan.policy.name,
        "balancedness": plan.predicted.balancedness,
        "moved_slots": plan.moved_slots,
        "seconds": plan.solve_s,
        "created_at": plan.created_at.ToJsonString() if plan.HasField("created_at") else None,
        "sha256": plan.digest,
    }


def _plan_description(plan: Plan) -> dict[str, Any]:
    return {
        "deployment": plan.deployment,
        "version": plan.version,
        "epoch": plan.epoch,
        "generation": plan.generation,
        "parent_version": plan.parent_version,
        "state": plan.state,
        "reason": plan.reason,
        "policy": plan.policy,
        "mode": plan.mode,
        "spill": plan.spill,
        "seed": plan.seed,
        "balancedness": plan.balancedness,
        "per_layer": list(plan.per_layer),
        "moved_slots": plan.moved_slots,
        "seconds": plan.solve_s,
        "created_at": None if plan.created_at is None else plan.created_at.isoformat(),
        "num_layers": plan.num_layers,
        "num_logical_experts": plan.num_logical_experts,
        "num_slots": plan.num_slots,
        "sha256": plan.digest,
    }


def _decision_row(decision: decision_pb2.Decision) -> dict[str, Any]:
    has_time = decision.HasField("decided_at")
    return {
        "sequence": decision.sequence,
        "epoch": decision.epoch,
        "reason": bare_name(decision_pb2.DecisionReason, decision.reason),
        "message": decision.message,
        "decided_at": decision.decided_at.ToJsonString() if has_time else None,
        "num_samples": decision.num_samples,
        "incumbent_version": decision.incumbent_version,
        "plan_version": decision.plan_version,
        "evaluation": bare_name(decision_pb2.Evaluation, decision.evaluation),
        "balancedness_before": decision.balancedness_before,
        "balancedness_after": decision.balancedness_after,
        "predicted_gain": decision.predicted_gain,
        "predicted_gain_s": decision.predicted_gain_s,
        "migration_cost_s": decision.migration_cost_s,
        "moved_slots": decision.moved_slots,
        "seconds": decision.solve_s,
    }


def _table(*columns: str) -> Table:
    # Without lines, so that names and reasons fit into 80 columns.
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column)
    return table


def _print_json(document: Any) -> None:
    click.echo(json.dumps(document, indent=2))
