"""Coming, going and what a participant is told about its plan."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from expertplane_server.core import events as ev
from expertplane_server.core.errors import InvalidArgumentError
from expertplane_server.core.limits import MAX_CLAIM
from expertplane_server.core.plan import PlanRef

from .. import builders
from .script import Conversation


OTHER_DIGEST = "ab" * 32


def test_first_hello() -> None:
    """The first to come is told that there is no plan yet, and elected."""
    talk = Conversation(builders.group())

    assert talk.tell(builders.hello(1)) == ["1 < welcome no_plan_yet elected"]


def test_second_hello() -> None:
    """The second to come is not elected."""
    talk = Conversation(builders.group())
    talk.tell(builders.hello(1, "a", (0,)))

    assert talk.tell(builders.hello(2, "b", (1,))) == ["2 < welcome no_plan_yet"]


@pytest.mark.parametrize(
    ("applied", "verdict"),
    [
        (PlanRef(), "take_this_plan v2"),
        (PlanRef(version=1, digest=builders.plan().digest), "take_this_plan v2"),
        (PlanRef(version=2, digest=OTHER_DIGEST), "take_this_plan v2"),
        (PlanRef(version=2, digest=builders.plan().digest), "up_to_date"),
        (PlanRef(version=3, digest=OTHER_DIGEST), "take_this_plan v2"),
    ],
)
def test_verdict(applied: PlanRef, verdict: str) -> None:
    """Up to date is who has version and digest of the committed plan; anyone else gets it."""
    talk = Conversation(builders.group(builders.plan(version=2), head=3))

    assert talk.tell(builders.hello(1, applied=applied)) == [f"1 < welcome {verdict} elected"]


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        ("1 ends: STALE_GENERATION", {"generation": 2}),
        ("1 ends: INVALID_ARGUMENT", {"ranks": (0, 2)}),
        ("1 ends: INVALID_ARGUMENT", {"highest_version": MAX_CLAIM + 1}),
        ("1 ends: INVALID_ARGUMENT", {"highest_epoch": MAX_CLAIM + 1}),
        ("1 ends: INVALID_ARGUMENT", {"initial_phy2log": np.array([[0, 1, 2]])}),
        ("1 ends: INVALID_ARGUMENT", {"initial_phy2log": np.array([[0, 1, 2, 4]])}),
        ("1 ends: INVALID_ARGUMENT", {"initial_phy2log": np.array([[0, 1, 2, -1]])}),
        ("1 ends: INVALID_ARGUMENT", {"initial_phy2log": np.array([[0, 1, 2, 2]])}),
    ],
)
def test_hello_that_does_not_fit(line: str, changes: dict[str, Any]) -> None:
    """A Hello that does not fit the deployment ends its stream and changes nothing."""
    talk = Conversation(builders.group())

    assert talk.tell(builders.hello(1, **changes)) == [line]
    assert len(talk.group.members) == 0
    assert talk.tell(builders.hello(2)) == ["2 < welcome no_plan_yet elected"]


@pytest.mark.parametrize(
    ("start", "is_taken"),
    [
        ([0, 1, 2, 3, -1, -1, -1, -1], True),
        ([0, 1, 2, 3, 0, 1, 2, 3], True),
        ([0, 1, 2, -1, 3, -1, -1, -1], False),
        ([0, 1, 2, 2, -1, -1, -1, -1], False),
        ([0, 1, 2, 3, -2, -1, -1, -1], False),
    ],
)
def test_start_placement_with_a_masked_rank(start: list[int], is_taken: bool) -> None:
    """Slots of masked ranks may be empty, or hold what they held before; others may not."""
    topology = builders.topology(slots_per_rank=4, masked_ranks=(1,))
    talk = Conversation(builders.group(wanted=builders.spec(topology=topology)))
    talk.tell(builders.hello(1, initial_phy2log=np.array([start])))

    assert len(talk.group.members) == int(is_taken)


def test_current_generation_may_be_named() -> None:
    """Generation 0 accepts the current one; naming the current one is as good."""
    talk = Conversation(builders.group())

    assert talk.tell(builders.hello(1, generation=1)) == ["1 < welcome no_plan_yet elected"]


def test_start_placement_differs() -> None:
    """All members start from one placement: who has another is refused, naming the field."""
    group = builders.group()
    group.handle(
        builders.hello(1, "a", (0,), initial_phy2log=np.array([[3, 2, 1, 0]])), builders.at()
    )
    other = builders.hello(2, "b", (1,), initial_phy2log=np.array([[0, 1, 2, 3]]))
    (ending,) = group.handle(other, builders.at())

    error = ending.error  # type: ignore[union-attr]  # the one effect is an EndStream
    assert isinstance(error, InvalidArgumentError)
    assert (error.reason, error.field) == ("INITIAL_PLACEMENT_MISMATCH", "hello.initial_phy2log")


def test_lone_member_may_change_its_start_placement() -> None:
    """An engine that restarts with another start placement has nobody to disagree with."""
    talk = Conversation(builders.group())
    talk.tell(builders.hello(1, started=1, initial_phy2log=np.array([[3, 2, 1, 0]])))

    again = builders.hello(2, started=2, initial_phy2log=np.array([[0, 1, 2, 3]]))
    assert talk.tell(again) == [
        "1 ends: SUPERSEDED",
        "supersede",
        "2 < welcome no_plan_yet elected",
    ]


def test_superseding_tells_the_new_elected() -> None:
    """When the elected reporter reconnects, whoever is elected in its place hears of it."""
    talk = Conversation(builders.group())
    talk.tell(builders.hello(1, "a", (0,)), builders.hello(2, "b", (1,)))

    assert talk.tell(builders.hello(3, "a", (0,))) == [
        "1 ends: SUPERSEDED",
        "3 < welcome no_plan_yet",
        "2 < welcome no_plan_yet elected",
    ]


def test_end_of_stream_tells_the_new_elected() -> None:
    """When the elected reporter goes, the next one hears that it is elected."""
    talk = Conversation(builders.group(builders.plan()))
    talk.tell(builders.hello(1, "a", (0,)), builders.hello(2, "b", (1,)))

    lines = talk.tell(ev.StreamEnded(stream=1, is_goodbye=True))
    assert lines == ["2 < welcome take_this_plan v1 elected"]


def test_end_of_a_stream_that_was_superseded() -> None:
    """The end of an old stream does not touch the one that took its place."""
    talk = Conversation(builders.group())
    talk.tell(builders.hello(1), builders.hello(2))

    assert talk.tell(ev.StreamEnded(stream=1, is_goodbye=False)) == []
    assert len(talk.group.members) == 1


@pytest.mark.parametrize(("version", "epoch"), [(8, 0), (8, 1), (0, 2), (8, 2)])
def test_restored_backup(version: int, epoch: int) -> None:
    """After a participant has told of more, the next version and term are new to everybody."""
    talk = Conversation(builders.group(builders.plan(version=7)))

    assert talk.tell(builders.hello(1, highest_version=version, highest_epoch=epoch)) == [
        f"raise for 1: version {version}, epoch {epoch}",
        "1 < welcome take_this_plan v7 elected",
    ]


def test_counters_that_are_no_higher() -> None:
    """Who has seen what the store holds makes nothing jump."""
    talk = Conversation(builders.group(builders.plan(version=7)))

    lines = talk.tell(builders.hello(1, highest_version=7, highest_epoch=1))
    assert lines == ["1 < welcome take_this_plan v7 elected"]


def test_counters_raised() -> None:
    """The head and the epoch of what follows are those of the store."""
    talk = Conversation(builders.group())
    talk.tell(builders.hello(1), ev.CountersRaised(head=9, epoch=4))

    assert (talk.group.deployment.head, talk.group.epoch) == (9, 4)
    assert talk.tell(ev.Tick()) == ["1 < heartbeat head 9 committed 0"]


def test_participants_outlive_a_false_claim() -> None:
    """After the highest claim that is believed, participants still come with what they heard."""
    talk = Conversation(builders.group())
    talk.tell(
        builders.hello(1, highest_version=MAX_CLAIM, highest_epoch=MAX_CLAIM),
        ev.CountersRaised(head=MAX_CLAIM + 5, epoch=MAX_CLAIM + 1),
    )

    seen = builders.hello(2, highest_version=MAX_CLAIM + 5, highest_epoch=MAX_CLAIM + 1)
    assert talk.tell(seen) == ["1 ends: SUPERSEDED", "2 < welcome no_plan_yet elected"]


def test_heartbeats() -> None:
    """Members hear a heartbeat at the first tick and then once an interval."""
    talk = Conversation(builders.group(builders.plan()))
    talk.tell(builders.hello(1))

    assert talk.wait(0.25) == ["1 < heartbeat head 1 committed 1"]
    assert talk.wait(4.5) == []
    assert talk.wait(0.5) == ["1 < heartbeat head 1 committed 1"]


def test_silent_member_is_lost_after_three_intervals() -> None:
    """A member is lost after three intervals without a word, and not at three."""
    talk = Conversation(builders.group())
    talk.tell(builders.hello(1, "a", (0,)), ev.Tick())

    for _ in range(3):
        assert talk.wait(5.0) == ["1 < heartbeat head 0 committed 0"]
    assert talk.wait(0.25) == ["1 ends: SILENT"]
    assert len(talk.group.members) == 0
    assert talk.tell(builders.hello(2, "b", (0,))) == ["2 < welcome no_plan_yet elected"]


def test_who_is_silent_because_the_planner_stood_still_is_not_lost() -> None:
    """After a stall of the planner what members said meanwhile is still to be read."""
    talk = Conversation(builders.group())
    talk.tell(builders.hello(1, "a", (0,)), ev.Tick())

    assert talk.wait(60.0) == ["1 < heartbeat head 0 committed 0"]
    assert len(talk.group.members) == 1


@pytest.mark.parametrize(
    "word",
    [
        ev.Heartbeat(stream=1, applied=PlanRef()),
        builders.report(),
        builders.report((1, 2)),
        ev.Ack(stream=1, ref=PlanRef(), phase=ev.AckPhase.APPLIED),
        builders.nack(3),
        ev.Refuse(stream=1, sequence=0, error=InvalidArgumentError("bad")),
    ],
    ids=lambda word: type(word).__name__,
)
def test_every_word_is_a_sign_of_life(word: ev.Event) -> None:
    """Any message keeps a member, also one that is refused."""
    talk = Conversation(builders.group())
    talk.tell(builders.hello(1))
    talk.now_s = 15.0
    talk.tell(word)

    assert "1 ends: SILENT" not in talk.wait(15.0)


@pytest.mark.parametrize(
    "word",
    [
        builders.report(stream=9),
        ev.Heartbeat(stream=9, applied=PlanRef()),
        ev.Ack(stream=9, ref=PlanRef(), phase=ev.AckPhase.APPLIED),
        builders.nack(1, stream=9),
        ev.StreamEnded(stream=9, is_goodbye=False),
    ],
    ids=lambda word: type(word).__name__,
)
def test_words_of_strangers(word: ev.Event) -> None:
    """A stream that is no member's changes nothing."""
    talk = Conversation(builders.group(builders.plan()))
    talk.tell(builders.hello(1))

    assert talk.tell(word) == []


def test_refusal_of_the_adapter_goes_out_in_order() -> None:
    """What the adapter refuses is answered through the core, behind earlier answers."""
    talk = Conversation(builders.group())
    error = InvalidArgumentError("bad", field="load_report.kind")
    talk.tell(builders.hello(1))

    lines = talk.tell(ev.Refuse(stream=1, sequence=4, error=error))
    assert lines == ["1 < refused 4: INVALID_ARGUMENT load_report.kind"]


def test_applied_version_is_one_that_was_seen() -> None:
    """What the ranks serve with was seen, whatever the participant says it has seen."""
    talk = Conversation(builders.group(builders.plan(version=7)))
    applied = PlanRef(version=9, digest=OTHER_DIGEST)

    lines = talk.tell(builders.hello(1, applied=applied, highest_version=2))
    assert lines[0] == "raise for 1: version 9, epoch 0"


def test_planner_that_stood_still_once_loses_the_silent_later() -> None:
    """The excuse of a pause holds for the silence before it, not for the one after."""
    talk = Conversation(builders.group())
    talk.tell(builders.hello(1), ev.Tick())
    assert "1 ends: SILENT" not in talk.wait(100.0)
    for _ in range(3):
        assert "1 ends: SILENT" not in talk.wait(5.0)

    assert "1 ends: SILENT" in talk.wait(0.25)
