"""What participants answer to a plan."""

from __future__ import annotations

import itertools

from expertplane_server.core import events as ev
from expertplane_server.core.plan import PlanRef, PlanState

from .. import builders
from .script import Conversation


def serving(version: int = 1) -> Conversation:
    """Return a conversation in which member 1 has been sent a plan."""
    talk = Conversation(builders.group())
    talk.tell(builders.hello(1), ev.Tick())
    talk.publish(builders.plan(version=version))
    return talk


def test_staged_unasked() -> None:
    """A member that stages what nobody rolls out together is heard, and has applied nothing."""
    talk = serving()
    staged = ev.Ack(stream=1, ref=builders.ref(builders.plan()), phase=ev.AckPhase.STAGED)

    assert talk.tell(staged) == []
    assert [member.applied for member in talk.group.members] == [PlanRef()]


def test_ack_of_an_unknown_version() -> None:
    """A version that was never assigned cannot have been applied."""
    talk = serving()
    unknown = ev.Ack(stream=1, ref=PlanRef(version=2, digest="ab" * 32), phase=ev.AckPhase.APPLIED)

    assert talk.tell(unknown) == ["1 < refused 0: UNKNOWN_PLAN_VERSION ack.version"]
    assert [member.applied for member in talk.group.members] == [PlanRef()]


def test_ack_of_another_content() -> None:
    """Who serves with another content under the plan's number is told, and has not applied it."""
    talk = serving()
    other = ev.Ack(stream=1, ref=PlanRef(version=1, digest="ab" * 32), phase=ev.AckPhase.APPLIED)

    assert talk.tell(other) == ["1 < refused 0: DIGEST_MISMATCH ack.digest"]
    assert talk.tell(builders.report(first_step=1))[-2] == "record SKIPPED_ROLLOUT_IN_FLIGHT"


def test_heartbeat_tells_what_is_applied() -> None:
    """A heartbeat that names the plan is as good as an Ack."""
    talk = serving()

    heartbeat = ev.Heartbeat(stream=1, applied=builders.ref(builders.plan()))
    assert talk.tell(heartbeat) == ["applied v1"]


def test_permanent_nack_settles_the_plan() -> None:
    """A plan that its last member refused for good holds the next window up no longer."""
    talk = serving()

    assert talk.tell(builders.nack(1)) == ["park a"]
    assert talk.tell(builders.report(first_step=1))[-1] == "solve 2 of 1 samples"


def test_refused_content_is_not_sent_again() -> None:
    """The content that a member refused for good is not sent to it under another number."""
    talk = serving()
    talk.tell(builders.nack(1))

    assert talk.publish(builders.plan(version=2)) == ["record PUBLISHED v2", "announce v2"]


def test_each_refused_content_is_remembered() -> None:
    """A member that refused one plan and then another is sent neither again."""
    talk = serving()
    talk.tell(builders.nack(1))
    talk.publish(builders.plan((3, 2, 1, 0), version=2))
    talk.tell(builders.nack(2))

    assert talk.publish(builders.plan(version=3)) == ["record PUBLISHED v3", "announce v3"]


def test_memory_of_refusals_is_bounded() -> None:
    """Of very many plans that a member refused, the latest sixteen are remembered."""
    talk = serving()
    for version, slots in enumerate(itertools.permutations(range(4)), start=2):
        talk.tell(builders.nack(version - 1))
        talk.publish(builders.plan(slots, version=version))

    (member,) = talk.group.members
    assert len(member.refused) == 16


def test_other_content_is_sent() -> None:
    """A member that refused one plan is sent the next."""
    talk = serving()
    talk.tell(builders.nack(1))

    assert talk.publish(builders.plan((3, 2, 1, 0), version=2))[-1] == "1 < commit v2"


def test_refused_content_is_not_sent_on_the_next_stream() -> None:
    """A process that refused the plan for good and lost its stream is not sent it again."""
    talk = serving()
    talk.tell(builders.nack(1), ev.StreamEnded(stream=1, is_goodbye=False))

    assert talk.tell(builders.hello(2)) == ["2 < welcome no_plan_yet elected"]


def test_refused_content_is_sent_to_a_new_process() -> None:
    """A new incarnation is asked again."""
    talk = serving()
    talk.tell(builders.nack(1), ev.StreamEnded(stream=1, is_goodbye=False))

    lines = talk.tell(builders.hello(2, started=2))
    assert lines == ["supersede", "2 < welcome take_this_plan v1 elected"]


def test_transient_nack_is_retried_ever_later() -> None:
    """Who asks for time gets the plan after a heartbeat interval, then after two, and so on."""
    talk = serving()
    sent_at_s = []
    talk.tell(builders.nack(1, is_transient=True))
    for _ in range(40):
        if "1 < commit v1" in talk.wait(1.0):
            sent_at_s.append(talk.now_s)
            talk.tell(builders.nack(1, is_transient=True))
        talk.tell(ev.Heartbeat(stream=1, applied=PlanRef()))

    assert sent_at_s == [5.0, 15.0, 35.0]


def test_retry_waits_for_the_next_refusal() -> None:
    """A plan that is sent again is not sent a third time unless it is refused again."""
    talk = serving()
    talk.tell(builders.nack(1, is_transient=True))

    assert talk.wait(5.0) == ["1 < commit v1", "1 < heartbeat head 1 committed 1"]
    assert talk.wait(5.0) == ["1 < heartbeat head 1 committed 1"]


def test_no_retry_after_a_refusal_for_good() -> None:
    """A plan that was refused for the time being and then for good is not sent again."""
    talk = serving()
    talk.tell(builders.nack(1, is_transient=True), builders.nack(1))

    assert talk.wait(5.0) == ["1 < heartbeat head 1 committed 1"]


def test_no_retry_of_what_is_applied() -> None:
    """Who asked for time and then applied the plan is left alone."""
    talk = serving()
    talk.tell(builders.nack(1, is_transient=True), builders.applied(builders.plan()))

    assert talk.wait(5.0) == ["1 < heartbeat head 1 committed 1"]


def test_nack_of_an_older_plan() -> None:
    """A refusal of a plan that is no longer the committed one means nothing."""
    talk = serving(version=2)

    assert talk.tell(builders.nack(1)) == []
    assert talk.tell(builders.report(first_step=1))[-2] == "record SKIPPED_ROLLOUT_IN_FLIGHT"


def test_newcomer_holds_the_next_plan_up() -> None:
    """A member that comes with another plan is in the middle of a roll-out of its own."""
    talk = serving()
    talk.tell(builders.applied(builders.plan()))
    talk.tell(ev.StreamEnded(stream=1, is_goodbye=True), builders.hello(2, started=2))

    lines = talk.tell(builders.report(stream=2, first_step=1))
    assert lines[-2] == "record SKIPPED_ROLLOUT_IN_FLIGHT"


def test_stored_state_survives_a_restart() -> None:
    """A plan that is stored as applied is not marked again."""
    plan = builders.plan(state=PlanState.APPLIED)
    talk = Conversation(builders.group(plan))
    talk.tell(builders.hello(1, applied=builders.ref(plan)))

    assert talk.tell(ev.Heartbeat(stream=1, applied=builders.ref(plan))) == []


def test_plan_of_nobody_is_not_applied() -> None:
    """Without members nobody serves with the plan."""
    talk = serving()

    assert talk.tell(ev.StreamEnded(stream=1, is_goodbye=False)) == []
    assert talk.group.committed is not None
    assert talk.group.committed.state is PlanState.COMMITTED


def test_heartbeat_of_an_unknown_version() -> None:
    """A plan that was never made cannot be served with; the heartbeat is a sign of life alone."""
    talk = serving()
    unknown = ev.Heartbeat(stream=1, applied=PlanRef(version=2, digest="ab" * 32))

    assert talk.tell(unknown) == ["1 < refused 0: UNKNOWN_PLAN_VERSION heartbeat.applied.version"]
    assert [member.applied for member in talk.group.members] == [PlanRef()]
