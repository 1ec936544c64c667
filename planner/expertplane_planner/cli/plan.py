"""`expertplane plan`: a plan for a recorded load."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from expertplane_client.console import (
    LoadOptions,
    MoveOptions,
    SolvedPlan,
    deliver,
    errors_in_one_line,
    load_options,
    move_options,
)
from expertplane_client.formats import engine_profile
from expertplane_planner.errors import InvalidInputError, PlannerError

from .defaults import DEFAULT_POLICY


if TYPE_CHECKING:
    from expertplane_client.formats import Recording


@click.command()
@load_options(policy=DEFAULT_POLICY)
@move_options
def plan(options: LoadOptions, moves: MoveOptions) -> None:
    """Plan for LOADFILE, here and now; needs no running planner."""
    with errors_in_one_line(PlannerError):
        recording = options.read()
        deliver(options, recording, _solve(options, moves, recording))


def _solve(options: LoadOptions, moves: MoveOptions, recording: Recording) -> SolvedPlan:
    from expertplane_planner import get_policy

    from .migration_report import benefit_report, transfers_report
    from .problem import (
        incumbent_from,
        problem_from,
        rules_of,
        soft_foreign_replicas,
        solve_problem,
        warm_up,
    )

    problem = problem_from(options, recording, num_slots=options.num_slots)
    problem = replace(problem, rules=rules_of(options.engine))
    policy = get_policy(options.policy, moves.parameters)
    in_force = moves.read_incumbent(options, recording)
    incumbent = incumbent_from(moves, in_force, problem)
    try:
        warm_up(problem, policy, incumbent)
        solved = solve_problem(problem, policy, incumbent)
    except InvalidInputError as error:
        if options.engine is None or not error.field.startswith("rules"):
            raise
        title = engine_profile(options.engine).title
        raise InvalidInputError(error.field, f"For {title}: {error}") from error
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
        incumbent=in_force,
        moved_slots=None if solved.moved_slots is None else sum(solved.moved_slots),
        benefit=None if solved.benefit is None else benefit_report(solved.benefit),
        transfers=None if solved.transfers is None else transfers_report(solved.transfers),
        foreign_replicas=soft_foreign_replicas(solved),
    )
