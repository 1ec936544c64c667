"""A plan that all ranks switch to together: staged by every member, committed, applied."""

from __future__ import annotations

import pytest

from expertplane_server.core import events as ev
from expertplane_server.core.plan import PlanRef, PlanState

from .. import builders
from .script import Conversation
from .stored import StoredConversation, coordinated, coordinated_pair, staging


STAGED_BY_BOTH = ["1 < stage v1 within 60 s", "2 < stage v1 within 60 s"]
ABORTED = ["abort v1", "record FAILED_ROLLOUT v1"]


def test_from_staging_to_applied() -> None:
    """Stored as staging, staged by all, committed durably, then permitted, then applied."""
    talk = coordinated_pair()

    assert talk.propose() == ["store on v0 staging", "record PUBLISHED v1", *STAGED_BY_BOTH]
    assert talk.group.staging_version == 1
    assert talk.group.committed is None
    assert talk.staged(2) == []
    assert talk.staged(1) == [
        "commit v1",
        "announce v1",
        "1 < commit v1 as staged",
        "2 < commit v1 as staged",
    ]
    assert talk.group.staging_version == 0
    assert talk.applied(2) == []
    assert talk.applied(1) == ["applied v1"]
    assert talk.plan(1).state is PlanState.APPLIED


def test_commit_is_durable_before_anybody_hears_of_it() -> None:
    """Until the store has confirmed the commit, nobody may switch and no watcher sees the plan."""
    talk = Conversation(builders.group(wanted=coordinated()))
    talk.tell(builders.hello(1))
    plan = builders.plan(state=PlanState.STAGING)
    assert talk.stage(plan) == ["record PUBLISHED v1", "1 < stage v1 within 600 s"]
    staged = ev.Ack(stream=1, ref=builders.ref(plan), phase=ev.AckPhase.STAGED)

    assert talk.tell(staged) == ["commit v1"]
    assert talk.group.committed is None
    assert talk.tell(ev.PlanCommitted(version=1)) == ["announce v1", "1 < commit v1 as staged"]


def test_staged_twice() -> None:
    """Who says twice that it has staged the plan counts once."""
    talk = staging(by=(1,))

    assert talk.staged(1) == []
    assert talk.staged(2)[0] == "commit v1"
    assert talk.staged(2) == []


def test_incumbent_serves_until_the_commit() -> None:
    """While a plan is staged, the placement in force and the verdicts are those of before."""
    talk = coordinated_pair()
    talk.roll_out((0, 2, 1, 3))
    assert talk.propose((3, 1, 2, 0))[1] == "record PUBLISHED v2"

    assert talk.group.in_force.tolist() == [[0, 2, 1, 3]]
    assert talk.group.committed is not None
    assert talk.group.committed.version == 1
    assert "1 < heartbeat head 2 committed 1" in talk.wait(5.0)


# Members must answer for all ranks.


def test_not_all_ranks_are_covered() -> None:
    """Without members for all ranks a window is skipped before its solve."""
    talk = StoredConversation(coordinated(deadline_s=1.0, min_coverage=0.5))
    talk.tell(builders.hello(1, "a", (0,)))
    talk.load()

    lines = talk.wait(1.0)
    assert lines[1:3] == ["record SKIPPED_MEMBERS_MISSING", "learn 1 samples"]


def test_member_that_goes_during_the_solve() -> None:
    """A plan that was solved while a member went is not stored: it could not be staged by all."""
    talk = coordinated_pair()
    talk.load()
    talk.tell(ev.StreamEnded(stream=2, is_goodbye=False))

    assert talk.solved() == ["record SKIPPED_MEMBERS_MISSING"]
    assert talk.group.deployment.head == 0


def test_masked_ranks_need_no_member() -> None:
    """A rank that takes no part is answered for by nobody, and the roll-out begins without."""
    topology = builders.topology(slots_per_rank=4, masked_ranks=(1,))
    talk = StoredConversation(coordinated(topology=topology))
    talk.tell(builders.hello(1, "a", (0,)))

    lines = talk.propose((0, 1, 2, 3, -1, -1, -1, -1))
    assert lines[-1] == "1 < stage v1 within 600 s"
    assert talk.staged(1)[-1] == "1 < commit v1 as staged"


def test_member_of_a_masked_rank_stages_as_well() -> None:
    """Whoever is a member is waited for, whatever ranks it answers for."""
    topology = builders.topology(slots_per_rank=4, masked_ranks=(1,))
    talk = StoredConversation(coordinated(topology=topology)).join()
    talk.propose((0, 1, 2, 3, -1, -1, -1, -1))

    assert talk.staged(1) == []
    assert talk.staged(2)[0] == "commit v1"


# What ends a staging.


@pytest.mark.parametrize("is_goodbye", [True, False])
@pytest.mark.parametrize("by", [(), (1,), (2,)])
def test_lost_member(is_goodbye: bool, by: tuple[int, ...]) -> None:
    """A member that goes ends the staging, durably before the others are told to drop it."""
    talk = staging(by=by)

    lines = talk.tell(ev.StreamEnded(stream=2, is_goodbye=is_goodbye))
    assert lines == [*ABORTED, "1 < abort v1"]
    assert talk.plan(1).state is PlanState.ABORTED
    latest = talk.group.journal.latest
    assert latest is not None
    how = "has left" if is_goodbye else "is lost"
    assert latest.message == f"Version 1 is given up before its commit. b {how}."
    assert talk.store.decision(builders.NAME, latest.sequence) == latest


def test_abort_is_durable_before_anybody_hears_of_it() -> None:
    """Until the store has confirmed the abort, members keep what they have staged."""
    talk = Conversation(builders.group(wanted=coordinated()))
    talk.tell(builders.hello(1, "a", (0,)), builders.hello(2, "b", (1,)))
    talk.stage(builders.plan())

    assert talk.tell(builders.nack(1, stream=2)) == ["park b", "abort v1"]
    assert talk.tell(ev.PlanAborted(version=1)) == [
        "record FAILED_ROLLOUT v1",
        "1 < abort v1",
        "2 < abort v1",
    ]


def test_silent_member() -> None:
    """A member that is not heard any more ends the staging like one whose stream has ended."""
    talk = staging(by=(1,))
    for _ in range(3):
        talk.now_s += 5.0
        talk.tell(ev.Heartbeat(stream=1, applied=PlanRef()), ev.Tick())
    talk.now_s += 0.25

    lines = talk.tell(ev.Heartbeat(stream=1, applied=PlanRef())) + talk.tell(ev.Tick())
    assert lines[:4] == ["2 ends: SILENT", *ABORTED, "1 < abort v1"]


def test_newcomer() -> None:
    """Who joins amid a staging ends it: the plan was not made with its buffers in mind."""
    wide = coordinated(topology=builders.topology(ranks_per_node=3, masked_ranks=(2,)))
    talk = StoredConversation(wide).join()
    talk.propose((0, 2, 1, 3, -1, -1))

    assert talk.tell(builders.hello(3, "c", (2,))) == [
        "3 < welcome no_plan_yet",
        *ABORTED,
        "1 < abort v1",
        "2 < abort v1",
    ]


def test_refused_hello_ends_nothing() -> None:
    """Who is not admitted does not disturb a staging."""
    talk = staging(by=(1,))

    assert talk.tell(builders.hello(3, "c", (0,))) == ["3 ends: RANKS_TAKEN"]
    assert talk.staged(2)[0] == "commit v1"


@pytest.mark.parametrize("started", [1, 2])
def test_reconnecting_member(started: int) -> None:
    """A member on a new stream ends the staging: nobody knows what it still has."""
    talk = staging(by=(1,))

    lines = talk.tell(builders.hello(3, "b", (1,), started=started))
    superseded = ["supersede"] * (started == 2)
    assert lines == [
        "2 ends: SUPERSEDED",
        *superseded,
        "3 < welcome no_plan_yet",
        *ABORTED,
        "1 < abort v1",
    ]
    assert talk.tell(ev.StreamEnded(stream=2, is_goodbye=False)) == []


def test_deadline() -> None:
    """What not all members have staged in time is given up."""
    talk = staging(by=(1,))
    talk.now_s = 59.0
    for stream in (1, 2):
        talk.tell(ev.Heartbeat(stream=stream, applied=PlanRef()))

    assert not any("abort" in line for line in talk.wait(0.75))
    assert talk.wait(0.25)[:4] == [*ABORTED, "1 < abort v1", "2 < abort v1"]


def test_permanent_refusal() -> None:
    """A member that refuses the plan for good ends the staging, and is remembered for it."""
    talk = staging(by=(1,))

    lines = talk.tell(builders.nack(1, stream=2))
    assert lines == ["park b", *ABORTED, "1 < abort v1", "2 < abort v1"]
    assert [each.participant for each in talk.store.recover("prod/v3", num_plans=1).parked] == [
        "b"
    ]


def test_aborted_version_is_burned() -> None:
    """The next plan has a higher version, and starts from the same placement."""
    talk = staging()
    talk.tell(builders.nack(1, stream=2))

    assert talk.propose((3, 1, 2, 0)) == [
        "store on v0 staging",
        "record PUBLISHED v2",
        "1 < stage v2 within 60 s",
        "2 < stage v2 within 60 s",
    ]


@pytest.mark.parametrize("started", [0, 1, 2])
def test_refused_content_is_staged_by_new_processes_only(started: int) -> None:
    """A process is never asked again to stage what it refused for good, on whatever stream."""
    talk = staging()
    talk.tell(builders.nack(1, stream=2))
    if started:
        talk.tell(ev.StreamEnded(stream=2, is_goodbye=False))
        talk.tell(builders.hello(3, "b", (1,), started=started))

    lines = talk.propose()
    if started < 2:
        assert lines == ["record SKIPPED_PLAN_REFUSED"]
    else:
        assert lines[-2:] == ["1 < stage v2 within 60 s", "3 < stage v2 within 60 s"]


# Not now.


def test_transient_refusal_is_asked_again_ever_later() -> None:
    """Who asks for time is asked again after 5 s, 10 s, 20 s, in what is left of the time."""
    talk = staging(by=(1,))
    assert talk.tell(builders.nack(1, stream=2, is_transient=True)) == []
    asked: list[tuple[float, str]] = []
    for _ in range(24):
        lines = talk.wait(2.5)
        asked += [(talk.now_s, line) for line in lines if "stage" in line or "abort v" in line]
        if any("stage" in line for line in lines):
            talk.tell(builders.nack(1, stream=2, is_transient=True))
        for stream in (1, 2):
            talk.tell(ev.Heartbeat(stream=stream, applied=PlanRef()))

    assert asked[:4] == [
        (5.0, "2 < stage v1 within 55 s"),
        (15.0, "2 < stage v1 within 45 s"),
        (35.0, "2 < stage v1 within 25 s"),
        (60.0, "abort v1"),
    ]


def test_staged_after_a_transient_refusal() -> None:
    """Who asked for time and then stages the plan is not asked again."""
    talk = staging(by=(1,))
    talk.tell(builders.nack(1, stream=2, is_transient=True))

    assert talk.staged(2)[0] == "commit v1"
    assert not any("stage" in line for line in talk.wait(5.0))


def test_transient_refusal_of_what_was_staged() -> None:
    """Who loses what it had staged has not staged it: the commit waits until it has again."""
    talk = staging(by=(2,))
    talk.tell(builders.nack(1, stream=2, is_transient=True))

    assert talk.staged(1) == []
    assert "2 < stage v1 within 55 s" in talk.wait(5.0)
    assert talk.staged(2)[0] == "commit v1"
