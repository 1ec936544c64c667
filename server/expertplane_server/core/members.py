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


if TYPE_CHECKING:
    from collections.abc import Iterator, Set

    from expertplane_server.core.events import Hello
    from expertplane_server.core.plan import Plan, PlanRef


_REFUSALS_KEPT = 16


@dataclass(slots=True)
class Member:
    """A live participant.

    Attributes:
        hello: what it said when it came.
        applied: the plan that its ranks serve with, as last reported.
        refused: digests of the plans that it refused for good, the latest last; bounded.
        last_seen_s: monotonic time of its latest message.
        wants_retry: it refused the committed plan for the time being.
    """

    hello: Hello
    applied: PlanRef
    last_seen_s: float
    refused: tuple[str, ...] = ()
    wants_retry: bool = False

    def is_settled(self, plan: Plan) -> bool:
        """Tells whether nothing more is to be expected of this member for this plan."""
        return plan.digest == self.applied.digest or plan.digest in self.refused

    def refuse(self, plan: Plan) -> None:
        """Notes that the member will not have this plan, now or later."""
        if plan.digest not in self.refused:
            self.refused = (*self.refused, plan.digest)[-_REFUSALS_KEPT:]


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

    def __init__(self) -> None:
        self._by_stream: dict[int, Member] = {}
        self._owners: dict[int, str] = {}
        self._departed: OrderedDict[str, _Departed] = OrderedDict()
        self._superseded: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_stream)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._by_stream.values())

    @property
    def ranks(self) -> Set[int]:
        """The ranks that the members answer for."""
        return self._owners.keys()

    def get(self, stream: int) -> Member | None:
        """Returns the member that speaks on this stream."""
        return self._by_stream.get(stream)

    def admit(self, hello: Hello, now_s: float) -> int | None:
        """Makes the sender a member and returns the stream that it supersedes, if any.

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
        departed = self._departed.pop(hello.participant, None)
        if departed is not None:
            if departed.incarnation == hello.incarnation:
                refused = departed.refused
            else:
                self._supersede(departed.incarnation)
        self._by_stream[hello.stream] = Member(hello, hello.applied, now_s, refused)
        self._owners.update(dict.fromkeys(hello.ranks, hello.participant))
        return previous

    def remove(self, stream: int) -> Member | None:
        """Takes the member of an ended stream out and returns it."""
        member = self._by_stream.pop(stream, None)
        if member is None:
            return None
        for rank in member.hello.ranks:
            del self._owners[rank]
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
