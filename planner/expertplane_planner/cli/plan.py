"""`expertplane plan`: a plan for a recorded load."""

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
from expertplane_planner.errors import PlannerError

from .defaults import DEFAULT_POLICY


if TYPE_CHECKING:
    from expertplane_client.formats import Recording


@click.command()
@load_options(policy=DEFAULT_POLICY)
def plan(options: LoadOptions) -> None:
    """Plan for LOADFILE, here and now; needs no running planner."""
    with errors_in_one_line(PlannerError):
        recording = options.read()
        deliver(options, recording, _solve(options, recording))


def _solve(options: LoadOptions, recording: Recording) -> SolvedPlan:
    from .problem import problem_from, soft_foreign_replicas, solve_problem, warm_up

    problem = problem_from(options, recording, num_slots=options.num_slots)
    warm_up(problem, options.policy)
    solved = solve_problem(problem, options.policy)
    return SolvedPlan(
        phy2log=solved.placement.phy2log.numpy(),
        policy=solved.policy,
        parameters=solved.policy_params,
        mode=str(solved.mode),
        seed=solved.seed,
        balancedness=solved.balance.balancedness,
        per_layer=solved.balance.per_layer,
        solve_s=solved.seconds,
        digest=solved.digest,
        foreign_replicas=soft_foreign_replicas(solved),
    )
