"""A plan that all have staged, and what members claim of plans: after the commit, only forward."""

from __future__ import annotations

import pytest

from expertplane_server.core import effects as fx, events as ev
from expertplane_server.core.plan import PlanRef, PlanState

from .. import builders
from .script import Conversation
from .stored import after_commit, coordinated, staging


ABORTED = ["abort v1", "record FAILED_ROLLOUT v1"]


# After the commit.


@pytest.mark.parametrize(
    "event",
    [
        ev.StreamEnded(stream=2, is_goodbye=False),
        ev.StreamEnded(stream=2, is_goodbye=True),
        builders.nack(1, stream=2),
        builders.nack(1, stream=2, is_transient=True),
        builders.hello(3, "b", (1,)),
        builders.hello(3, "b", (1,), started=2),
        ev.Ack(stream=2, ref=PlanRef(version=1, digest="ab" * 32), phase=ev.AckPhase.STAGED),
    ],
)
def test_nothing_ends_what_is_committed(event: ev.Event) -> None:
    """After the commit there is only forward: nobody is told to drop the plan."""
    talk = after_commit()

    lines = [*talk.tell(event), *talk.wait(0.25), *talk.wait(3600.0)]
    assert not any("abort" in line for line in lines)
    assert talk.plan(1).state.is_in_force


def test_member_that_comes_back_after_the_commit() -> None:
    """A participant that missed the commit is told the plan in its welcome."""
    talk = after_commit()
    talk.tell(ev.StreamEnded(stream=2, is_goodbye=False))

    lines = talk.tell(builders.hello(3, "b", (1,), staged=talk.ref(1)))
    assert lines == ["3 < welcome take_this_plan v1"]


def test_newcomer_while_the_commit_is_in_doubt() -> None:
    """Who joins before the commit is confirmed gets the whole plan, others what they staged."""
    wide = coordinated(topology=builders.topology(ranks_per_node=3, masked_ranks=(2,)))
    talk = Conversation(builders.group(wanted=wide))
    talk.tell(builders.hello(1, "a", (0,)), builders.hello(2, "b", (1,)))
    plan = builders.plan((0, 2, 1, 3, -1, -1), state=PlanState.STAGING)
    talk.stage(plan)
    for stream in (1, 2):
        ref = builders.ref(plan)
        talk.tell(ev.Ack(stream=stream, ref=ref, phase=ev.AckPhase.STAGED))

    assert talk.tell(builders.hello(3, "c", (2,))) == ["3 < welcome no_plan_yet"]
    assert talk.tell(ev.PlanCommitted(version=1)) == [
        "announce v1",
        "1 < commit v1 as staged",
        "2 < commit v1 as staged",
        "3 < commit v1",
    ]


def test_no_second_plan_before_the_first_is_applied() -> None:
    """While a member has not applied the committed plan, no other is solved or published."""
    talk = after_commit()
    talk.applied(1)

    assert talk.load()[-2:] == ["record SKIPPED_ROLLOUT_IN_FLIGHT", "learn 1 samples"]
    talk.applied(2)
    assert talk.load()[-1] == "solve 2 of 1 samples"


def test_no_second_plan_during_the_first() -> None:
    """Newer loads never pre-empt a staging."""
    talk = staging()

    assert talk.load()[-2:] == ["record SKIPPED_ROLLOUT_IN_FLIGHT", "learn 1 samples"]


# What participants claim.


def test_staged_of_an_aborted_version() -> None:
    """Who was slow to stage what has been given up changes nothing."""
    talk = staging()
    talk.tell(builders.nack(1, stream=2))

    assert talk.staged(1) == []
    assert talk.propose((3, 1, 2, 0))[-1] == "2 < stage v2 within 60 s"
    assert talk.staged(1, 1) == []
    assert talk.staged(1, 2) == []
    assert talk.staged(2, 2)[0] == "commit v2"


def test_staged_of_another_content() -> None:
    """Who has staged another content under the plan's number is told, and has staged nothing."""
    talk = staging(by=(1,))
    other = ev.Ack(stream=2, ref=PlanRef(version=1, digest="ab" * 32), phase=ev.AckPhase.STAGED)

    assert talk.tell(other) == ["2 < refused 0: DIGEST_MISMATCH ack.digest"]
    assert talk.staged(2)[0] == "commit v1"


@pytest.mark.parametrize("phase", list(ev.AckPhase))
def test_ack_of_an_unknown_version(phase: ev.AckPhase) -> None:
    """A version that was never assigned cannot have been staged or applied."""
    talk = staging(by=(1,))
    unknown = ev.Ack(stream=2, ref=PlanRef(version=2, digest="ab" * 32), phase=phase)

    assert talk.tell(unknown) == ["2 < refused 0: UNKNOWN_PLAN_VERSION ack.version"]
    assert talk.group.staging_version == 1


def test_applied_before_the_commit() -> None:
    """Who switches without permission has not staged the plan for the others."""
    talk = staging(by=(1,))

    assert talk.applied(2) == []
    assert talk.group.committed is None


def test_comes_back_with_what_nobody_rolls_out() -> None:
    """Who still has a plan in its buffers that was given up is told to drop it."""
    talk = staging(by=(1,))
    ref = talk.ref(1)
    talk.tell(ev.StreamEnded(stream=1, is_goodbye=False))

    lines = talk.tell(builders.hello(3, "a", (0,), staged=ref))
    assert lines == ["3 < welcome no_plan_yet", "3 < abort v1"]


def test_comes_back_with_what_is_being_staged() -> None:
    """Who reconnects with the staged plan ends the staging, and is told when that is durable."""
    talk = staging(by=(1,))

    lines = talk.tell(builders.hello(3, "a", (0,), staged=talk.ref(1)))
    assert lines == [
        "1 ends: SUPERSEDED",
        "3 < welcome no_plan_yet",
        "2 < welcome no_plan_yet elected",
        *ABORTED,
        "2 < abort v1",
        "3 < abort v1",
    ]


def test_comes_back_with_the_committed_plan_staged() -> None:
    """Who has staged the committed plan is told to take it, and not to drop it."""
    talk = after_commit()

    lines = talk.tell(builders.hello(3, "b", (1,), staged=talk.ref(1)))
    assert lines == ["2 ends: SUPERSEDED", "3 < welcome take_this_plan v1"]


def test_watchers_see_committed_plans_only() -> None:
    """A plan that was given up is announced to nobody."""
    talk = staging(by=(1,))
    talk.tell(builders.nack(1, stream=2))

    assert [effect for effect in talk.effects if isinstance(effect, fx.Announce)] == []
