"""Who takes part: live participants by stream, incarnations, ranks, what each serves with."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from expertplane_server.core import limits
from expertplane_server.core.errors import (
    AlreadyExistsError,
    ExhaustedError,
    FailedPreconditionError,
)
from expertplane_server.core.plan import ParkedPlan


if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Set

    from expertplane_server.core.events import Hello
    from expertplane_server.core.plan import Plan, PlanRef


_REFUSALS_KEPT = 16
_MAX_RETRY_S = 300.0
_REMINDER_INTERVALS = 12.0
"""Heartbeat intervals without progress after which a member is told again: a minute."""


@dataclass(slots=True)
class Retry:
    """When a plan is sent again to a member that has yet to come to it.

    Attributes:
        version: the plan.
        at_s: monotonic time.
        refusals: for the time being, so far; each doubles the wait.
    """

    version: int
    at_s: float
    refusals: int = 0


@dataclass(slots=True)
class Member:
    """A live participant.

    Attributes:
        hello: what it said when it came.
        applied: the plan that its ranks serve with, as last reported.
        refused: digests of the plans that it refused for good, the latest last; bounded.
        last_seen_s: monotonic time of its latest message.
        reported_at_s: monotonic time of its latest load report, or of its arrival.
        retry: when it is told again of the plan that it should have; None before that is known.
    """

    hello: Hello
    applied: PlanRef
    last_seen_s: float
    reported_at_s: float
    refused: tuple[str, ...] = ()
    retry: Retry | None = None

    def ask_later(self, plan: Plan, now_s: float, wait_s: float) -> None:
        """Notes that the member wants the plan again later: the wait doubles every time."""
        refusals = 1
        if self.retry is not None and self.retry.version == plan.version:
            refusals = self.retry.refusals + 1
        # Bounded before the power is taken: a member may refuse for days.
        delay_s = min(wait_s * 2.0 ** min(refusals - 1, 16), _MAX_RETRY_S)
        self.retry = Retry(plan.version, now_s + delay_s, refusals)

    def is_due(self, plan: Plan, now_s: float, wait_s: float) -> bool:
        """Tells whether to send the plan again; after that, and at first, there is a long wait.

        A member that has heard of the plan may still be at something older, such as a switch that
        began before the planner's store was restored.
        """
        reminder_s = min(_REMINDER_INTERVALS * wait_s, _MAX_RETRY_S)
        retry = self.retry
        if retry is None or retry.version != plan.version:
            self.retry = Retry(plan.version, now_s + reminder_s)
            return False
        if now_s < retry.at_s:
            return False
        retry.at_s = now_s + reminder_s
        return True

    def has_applied(self, plan: Plan) -> bool:
        """Tells whether its ranks serve with this version of this content."""
        return (self.applied.version, self.applied.digest) == (plan.version, plan.digest)

    def is_settled(self, plan: Plan) -> bool:
        """Tells whether nothing more is to be expected of this member for this plan."""
        return self.has_applied(plan) or plan.digest in self.refused

    def refuse(self, digest: str) -> list[ParkedPlan]:
        """Notes that the member will not have this content, now or later; returns what is new."""
        if digest in self.refused:
            return []
        self.refused = (*self.refused, digest)[-_REFUSALS_KEPT:]
        hello = self.hello
        return [
            ParkedPlan(participant=hello.participant, incarnation=hello.incarnation, digest=digest)
        ]


@dataclass(frozen=True, slots=True)
class Admitted:
    """What the arrival of a member ends.

    Attributes:
        stream: the earlier stream of the same participant; None when there was none.
        incarnation: the incarnation that is over for good; None when it is the same one.
    """

    stream: int | None = None
    incarnation: str | None = None


@dataclass(frozen=True, slots=True)
class _Departed:
    """What is kept of a participant whose stream has ended."""

    incarnation: str
    refused: tuple[str, ...]


class Membership:
    """The live participants of one deployment and generation.

    Invariants: no two members share a participant id or a rank; a superseded incarnation never
    becomes a member again, and one that comes back has not forgotten what it refused.
    """

    def __init__(self, parked: Iterable[ParkedPlan] = (), superseded: Iterable[str] = ()) -> None:
        self._by_stream: dict[int, Member] = {}
        self._owners: dict[int, str] = {}
        self._ranks: frozenset[int] | None = None
        self._departed: OrderedDict[str, _Departed] = OrderedDict()
        self._superseded: OrderedDict[str, None] = OrderedDict.fromkeys(superseded)
        for each in parked:
            earlier = self._departed.get(each.participant)
            refused: tuple[str, ...] = ()
            if earlier is not None and earlier.incarnation == each.incarnation:
                refused = earlier.refused
            self._departed[each.participant] = _Departed(each.incarnation, (*refused, each.digest))

    def __len__(self) -> int:
        return len(self._by_stream)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._by_stream.values())

    @property
    def ranks(self) -> Set[int]:
        """The ranks that the members answer for: the same object until somebody comes or goes."""
        if self._ranks is None:
            self._ranks = frozenset(self._owners)
        return self._ranks

    def get(self, stream: int) -> Member | None:
        """Returns the member that speaks on this stream."""
        return self._by_stream.get(stream)

    def admit(self, hello: Hello, now_s: float) -> Admitted:
        """Makes the sender a member and returns what it supersedes.

        Raises:
            FailedPreconditionError: its incarnation has been superseded.
            AlreadyExistsError: one of its ranks belongs to another live participant.
            ExhaustedError: there are too many members.
        """
        if hello.incarnation in self._superseded:
            raise FailedPreconditionError(
                f"Expected the latest incarnation of {hello.participant}, "
                f"got {hello.incarnation}, which another has superseded.",
                field="hello.incarnation",
                reason="SUPERSEDED",
            )
        previous = self._of_participant(hello.participant)
        self._check_ranks(hello)
        if previous is None and len(self._by_stream) >= limits.MAX_MEMBERS:
            raise ExhaustedError(
                f"Expected at most {limits.MAX_MEMBERS} participants in a deployment.",
                retry_after_s=30.0,
                reason="TOO_MANY_PARTICIPANTS",
            )
        if previous is not None:
            self.remove(previous)
        refused: tuple[str, ...] = ()
        over = None
        departed = self._departed.pop(hello.participant, None)
        if departed is not None:
            if departed.incarnation == hello.incarnation:
                refused = departed.refused
            else:
                over = departed.incarnation
                self._supersede(over)
        self._by_stream[hello.stream] = Member(hello, hello.applied, now_s, now_s, refused)
        self._owners.update(dict.fromkeys(hello.ranks, hello.participant))
        self._ranks = None
        return Admitted(previous, over)

    def remove(self, stream: int) -> Member | None:
        """Takes the member of an ended stream out and returns it."""
        member = self._by_stream.pop(stream, None)
        if member is None:
            return None
        for rank in member.hello.ranks:
            del self._owners[rank]
        self._ranks = None
        departed = _Departed(member.hello.incarnation, member.refused)
        self._departed[member.hello.participant] = departed
        while len(self._departed) > limits.MAX_MEMBERS:
            self._departed.popitem(last=False)
        return member

    def excuse(self, now_s: float) -> None:
        """Counts every member as heard now."""
        for member in self:
            member.last_seen_s = now_s

    def silent_since(self, then_s: float) -> list[int]:
        """Returns the streams whose last message is older than `then_s` (monotonic)."""
        return [
            stream for stream, member in self._by_stream.items() if member.last_seen_s < then_s
        ]

    def elected(self) -> int | None:
        """Returns the stream of the member that may report for the whole deployment.

        The longest-serving member: a change would double or lose tokens, so none is made lightly.
        """
        return next(iter(self._by_stream), None)

    def _of_participant(self, participant: str) -> int | None:
        """Returns the stream of the member of this id."""
        for stream, member in self._by_stream.items():
            if member.hello.participant == participant:
                return stream
        return None

    def _check_ranks(self, hello: Hello) -> None:
        """Refuses ranks that another participant answers for."""
        for rank in hello.ranks:
            owner = self._owners.get(rank, hello.participant)
            if owner != hello.participant:
                raise AlreadyExistsError(
                    f"Expected ranks without an owner, got rank {rank}, which {owner} "
                    "answers for.",
                    field="hello.ranks",
                    reason="RANKS_TAKEN",
                )

    def _supersede(self, incarnation: str) -> None:
        """Remembers that an incarnation is over, in bounded memory."""
        self._superseded[incarnation] = None
        while len(self._superseded) > limits.MAX_MEMBERS:
            self._superseded.popitem(last=False)
