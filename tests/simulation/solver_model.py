"""A solver that answers late, wrongly little, or never; its placements are always valid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from expertplane.wire import digest_phy2log
from expertplane_server.core import events as ev
from expertplane_server.core.plan import Balance, Evaluation, Necessity, Solution
from expertplane_server.core.spec import Mode

from .scenario import flaw, nudged, random_placement


if TYPE_CHECKING:
    from expertplane_server.core import effects as fx

    from .planner_model import Planner
    from .world import World


def solve(world: World, planner: Planner, effect: fx.Solve) -> None:
    """Have a placement made; the answer comes in a while, if at all."""
    rng = world.loop.rng
    turn = 1.0 if world.is_calm else rng.random()
    if turn < 0.02:
        planner.hung_solves.append(effect.solve)
        return
    answer: ev.Event
    if turn < 0.08:
        answer = ev.SolveFailed(solve=effect.solve, message="simulated")
    else:
        answer = ev.Solved(solve=effect.solve, solution=_solution(world, planner, effect))
    world.loop.after(rng.uniform(0.05, 1.5), planner.submit, answer)


def _solution(world: World, planner: Planner, effect: fx.Solve) -> Solution:
    rng, spec = world.loop.rng, planner.group.deployment.spec
    placement = nudged(rng, spec, effect.incumbent, 0 if world.is_calm else rng.randint(0, 4))
    if not world.is_calm and rng.random() < 0.2:
        placement = random_placement(rng, spec)
    fetched = (placement != effect.incumbent).sum(axis=1)
    # When nothing goes wrong nothing needs to move either, so that the world comes to rest.
    gain = 0.0 if world.is_calm else rng.uniform(-0.1, 0.4)
    necessity = Necessity.LOST_EXPERTS if flaw(spec, np.asarray(effect.incumbent)) else None
    balance = Balance(balancedness=0.9, mean=0.9, minimum=0.9, per_layer=(0.9,) * len(placement))
    return Solution(
        phy2log=placement,
        digest=digest_phy2log(placement),
        policy="simulated",
        mode=Mode.GLOBAL,
        seed=0,
        num_logical_experts=spec.num_logical_experts,
        balance=balance,
        balance_before=balance,
        gain=gain,
        moved_slots=int(fetched.sum()),
        most_moved_slots=int(fetched.max()),
        evaluation=Evaluation.IN_SAMPLE,
        solve_s=0.01,
        gain_s=150.0 * gain,
        necessity=necessity,
    )
