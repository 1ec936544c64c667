"""Messages that a participant may send and a planner must refuse, or shrug off."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from expertplane_server.core import events as ev, limits
from expertplane_server.core.errors import InvalidArgumentError
from expertplane_server.core.plan import PlanRef


if TYPE_CHECKING:
    from .participant_model import Process
    from .world import World


def message(world: World, process: Process, stream: int) -> ev.Event:
    """Draw something that does not belong on an open stream."""
    scenario, rng = world.scenario, world.loop.rng
    unknown = PlanRef(version=10**6, digest="f" * 64)
    wrong = PlanRef(version=process.applied.version, digest="e" * 64)
    report = ev.LoadReport(
        stream=stream,
        sequence=10**6,
        plan_version=0,
        first_step=rng.choice((0, 5)),
        steps_per_sample=rng.choice((7, 10)),
        kind=scenario.kind,
        scope=scenario.scope,
        counts=np.ones((1, scenario.spec.num_layers + 1, 3)),
    )
    columns = len(process.site.ranks) * scenario.spec.topology.slots_per_rank
    from_nowhere = replace(
        report,
        kind=ev.LoadKind.PHYSICAL,
        scope=ev.LoadScope.PARTICIPANT,
        plan_version=10**6,
        counts=np.ones((1, scenario.spec.num_layers, columns)),
    )
    return rng.choice(
        (
            ev.Ack(stream=stream, ref=unknown, phase=ev.AckPhase.APPLIED),
            ev.Ack(stream=stream, ref=unknown, phase=ev.AckPhase.STAGED),
            ev.Ack(stream=stream, ref=wrong, phase=ev.AckPhase.STAGED),
            ev.Nack(stream=stream, version=10**6, message="no", is_transient=False),
            ev.Heartbeat(stream=stream, applied=unknown),
            ev.Refuse(stream=stream, sequence=0, error=InvalidArgumentError("Expected bytes.")),
            report,
            from_nowhere,
        )
    )


def hello(world: World, process: Process, stream: int) -> ev.Hello:
    """Draw a first message that the planner must end the stream for."""
    rng = world.loop.rng
    good = process.hello(stream)
    intruder = replace(good, participant="intruder", incarnation="intruder-1")
    return rng.choice(
        (
            intruder,
            replace(intruder, ranks=(10**3,)),
            replace(good, ranks=(10**3,)),
            replace(good, generation=10**3),
            replace(good, highest_version=limits.MAX_CLAIM + 1),
            replace(good, highest_epoch=limits.MAX_CLAIM + 1),
            replace(good, initial_phy2log=np.zeros((1, 1), dtype=np.int32)),
        )
    )
