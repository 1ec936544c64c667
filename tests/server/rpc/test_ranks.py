"""A deployment with a lost and a slow rank, from its creation to the plan in a participant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertplane.wire import decode_tensor
from expertplane_client.plan import Plan

from . import messages


if TYPE_CHECKING:
    from .harness import Server


async def test_a_plan_for_the_ranks_that_are_left(server: Server) -> None:
    """Rank 1 of three is lost and rank 2 half as fast: reports of 0 and 2 make a window.

    The start placement is 0 1 2 | - - - | 3 0 1. Of 8, 8, 4 and 4 tokens that puts 12 on rank 0,
    and 12 on rank 2, where they count 24: balancedness 18 / 24. A plan can do better.
    """
    topology = messages.topology(
        ranks_per_node=3, slots_per_rank=3, masked_ranks=[1], rank_capacities=[1.0, 1.0, 0.5]
    )
    created = await server.create(topology=topology)
    assert created.spec.topology == topology
    stream = await server.join(ranks=[0, 2])
    await stream.say(load_report=messages.load_report(((8, 8, 4, 4),)))

    await stream.hear("report_ack")
    commit = await stream.hear("commit")
    (row,) = decode_tensor(commit.plan.phy2log, max_shape=(1, 9)).tolist()
    assert row[3:6] == [-1, -1, -1]
    plan = Plan.from_message(commit.plan)
    assert plan.logcnt().sum() == 6
    assert plan.balancedness > 18 / 24
