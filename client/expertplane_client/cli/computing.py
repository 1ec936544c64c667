"""`expertplane compute-plan`: a plan for a recorded load from a running planner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from expertplane_client.balance import balance
from expertplane_client.console import (
    SOFT_MODE,
    LoadOptions,
    MoveOptions,
    SolvedPlan,
    address_option,
    deliver,
    errors_in_one_line,
    foreign_replicas,
    load_options,
    move_options,
)

from .common import connect


if TYPE_CHECKING:
    from expertplane_client.blocking import BlockingClient
    from expertplane_client.formats import Recording


@click.command("compute-plan")
@load_options()
@move_options
@address_option
def compute_plan(options: LoadOptions, moves: MoveOptions, address: str) -> None:
    """Let a running planner plan for LOADFILE; it stores nothing."""
    with errors_in_one_line(), connect(address) as client:
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
