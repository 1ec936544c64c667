"""The planner's offline command. Needs click, rich and torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from expertplane_client.console import (
    LoadOptions,
    SolvedPlan,
    deliver,
    errors_in_one_line,
    load_options,
)
from expertplane_client.formats import read_load

from .errors import PlannerError


if TYPE_CHECKING:
    from expertplane_client.formats import Recording


@click.command()
@load_options
def plan(options: LoadOptions) -> None:
    """Plan for LOADFILE, here and now; needs no running planner."""
    with errors_in_one_line(PlannerError):
        recording = read_load(options.loadfile, options.layer_ids)
        deliver(options, recording, _solve(options, recording))


def _solve(options: LoadOptions, recording: Recording) -> SolvedPlan:
    import torch

    from .model import ExpertLoad, Mode, Topology
    from .solve import solve

    solved = solve(
        ExpertLoad(torch.tensor(recording.samples)),
        Topology(
            num_nodes=options.num_nodes,
            num_ranks=options.num_ranks,
            num_slots=options.num_slots,
        ),
        num_expert_groups=options.num_expert_groups,
        mode=Mode(options.mode),
        policy=options.policy,
        seed=options.seed,
    )
    placement = solved.placement
    return SolvedPlan(
        phy2log=placement.phy2log.numpy(),
        log2phy=placement.log2phy().numpy(),
        logcnt=placement.logcnt().numpy(),
        policy=solved.policy,
        parameters=solved.policy_params,
        mode=str(solved.mode),
        seed=solved.seed,
        balancedness=solved.balance.balancedness,
        per_layer=solved.balance.per_layer,
        solve_s=solved.seconds,
        digest=solved.digest,
    )
