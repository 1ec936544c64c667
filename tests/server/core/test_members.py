"""Who takes part."""

from __future__ import annotations

import pytest

from expertplane_server.core import limits
from expertplane_server.core.errors import (
    AlreadyExistsError,
    ExhaustedError,
    FailedPreconditionError,
)
from expertplane_server.core.members import Admitted, Membership

from .. import builders


def test_admitted() -> None:
    """A participant is a member from its Hello on, with the ranks that it named."""
    members = Membership()

    assert members.admit(builders.hello(7, "a", (0, 3)), 1.0) == Admitted()
    assert [member.hello.participant for member in members] == ["a"]
    assert members.ranks == {0, 3}


def test_removed() -> None:
    """A member whose stream has ended leaves nothing but its name behind."""
    members = Membership()
    members.admit(builders.hello(7, "a", (0, 3)), 1.0)

    assert members.remove(7) is not None
    assert (len(members), members.ranks, members.get(7)) == (0, set(), None)
    assert members.remove(7) is None


def test_latest_stream_wins() -> None:
    """A second stream of a participant takes the place of the first."""
    members = Membership()
    members.admit(builders.hello(1, "a", (0, 1)), 0.0)

    assert members.admit(builders.hello(2, "a", (1, 2)), 0.0).stream == 1
    assert (members.get(1), members.ranks) == (None, {1, 2})


def test_superseded_incarnation_is_refused_for_good() -> None:
    """A process that another has replaced never comes back, also when the other is gone."""
    members = Membership()
    members.admit(builders.hello(1, started=1), 0.0)
    members.admit(builders.hello(2, started=2), 0.0)
    members.remove(2)

    with pytest.raises(FailedPreconditionError) as refusal:
        members.admit(builders.hello(3, started=1), 0.0)
    assert refusal.value.reason == "SUPERSEDED"
    assert len(members) == 0


def test_incarnation_lost_before_its_successor_came_is_superseded_too() -> None:
    """A process that was cut off and replaced cannot push its successor out when it wakes."""
    members = Membership()
    members.admit(builders.hello(1, started=1), 0.0)
    members.remove(1)
    members.admit(builders.hello(2, started=2), 0.0)

    with pytest.raises(FailedPreconditionError):
        members.admit(builders.hello(3, started=1), 0.0)
    assert members.get(2) is not None


def test_same_incarnation_may_come_back() -> None:
    """A process that only lost its stream is welcome again."""
    members = Membership()
    members.admit(builders.hello(1, started=1), 0.0)
    members.remove(1)
    members.admit(builders.hello(2, started=1), 0.0)

    assert members.admit(builders.hello(3, started=1), 0.0).stream == 2


@pytest.mark.parametrize("is_stream_lost_first", [True, False])
def test_refused_plan_stays_refused(is_stream_lost_first: bool) -> None:
    """A process that refused a plan for good has done so on its next stream as well."""
    members = Membership()
    members.admit(builders.hello(1, started=1), 0.0)
    member = members.get(1)
    assert member is not None
    member.refuse(builders.plan().digest)
    if is_stream_lost_first:
        members.remove(1)
    members.admit(builders.hello(2, started=1), 0.0)

    again = members.get(2)
    assert again is not None
    assert again.refused == (builders.plan().digest,)


def test_new_incarnation_has_refused_nothing() -> None:
    """A fresh process is asked again."""
    members = Membership()
    members.admit(builders.hello(1, started=1), 0.0)
    member = members.get(1)
    assert member is not None
    member.refuse(builders.plan().digest)
    members.admit(builders.hello(2, started=2), 0.0)

    fresh = members.get(2)
    assert fresh is not None
    assert fresh.refused == ()


def test_ranks_of_another() -> None:
    """A rank has one owner; who claims another's is refused and changes nothing."""
    members = Membership()
    members.admit(builders.hello(1, "a", (0, 1)), 0.0)

    with pytest.raises(AlreadyExistsError, match="rank 1, which a answers for") as refusal:
        members.admit(builders.hello(2, "b", (1, 2)), 0.0)
    assert (refusal.value.field, refusal.value.reason) == ("hello.ranks", "RANKS_TAKEN")
    assert (len(members), members.ranks) == (1, {0, 1})


def test_refused_hello_supersedes_nobody() -> None:
    """A new incarnation that claims another's ranks does not end the old one."""
    members = Membership()
    members.admit(builders.hello(1, "a", (0,)), 0.0)
    members.admit(builders.hello(2, "b", (1,), started=1), 0.0)

    with pytest.raises(AlreadyExistsError):
        members.admit(builders.hello(3, "b", (0,), started=2), 0.0)
    assert members.get(2) is not None
    assert members.admit(builders.hello(4, "b", (1,), started=1), 0.0).stream == 2


def test_number_of_members_is_bounded() -> None:
    """One member too many is told to try later."""
    members = Membership()
    for number in range(limits.MAX_MEMBERS):
        members.admit(builders.hello(number, f"a{number}", (number,)), 0.0)

    with pytest.raises(ExhaustedError) as refusal:
        members.admit(builders.hello(9999, "b", (9999,)), 0.0)
    assert refusal.value.reason == "TOO_MANY_PARTICIPANTS"
    assert len(members) == limits.MAX_MEMBERS


def test_memory_of_the_departed_is_bounded() -> None:
    """Participants that come and go leave bounded traces."""
    members = Membership()
    for number in range(limits.MAX_MEMBERS + 100):
        members.admit(builders.hello(1, f"a{number}", started=2 * number), 0.0)
        members.admit(builders.hello(2, f"a{number}", started=2 * number + 1), 0.0)
        members.remove(2)

    assert len(members._departed) == limits.MAX_MEMBERS
    assert len(members._superseded) == limits.MAX_MEMBERS


def test_elected_is_the_longest_serving() -> None:
    """The first to come may report for all; when it goes, the next in line may."""
    members = Membership()
    assert members.elected() is None
    members.admit(builders.hello(5, "a", (0,)), 0.0)
    members.admit(builders.hello(3, "b", (1,)), 0.0)

    assert members.elected() == 5
    members.remove(5)
    assert members.elected() == 3


def test_silent_since() -> None:
    """Silent is who was last heard before the moment, not at it."""
    members = Membership()
    members.admit(builders.hello(1, "a", (0,)), 1.0)
    members.admit(builders.hello(2, "b", (1,)), 2.0)

    assert members.silent_since(2.0) == [1]
