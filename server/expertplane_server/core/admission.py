"""Whether a Hello fits the deployment that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane_server.core import limits
from expertplane_server.core.errors import FailedPreconditionError, InvalidArgumentError
from expertplane_server.core.placements import check_placement


if TYPE_CHECKING:
    from collections.abc import Iterable

    from expertplane_server.core.events import Hello
    from expertplane_server.core.members import Member
    from expertplane_server.core.spec import Deployment


def check_hello(hello: Hello, deployment: Deployment, epoch: int) -> None:
    """Refuses a Hello whose generation, ranks, claims or start placement do not fit.

    Raises:
        FailedPreconditionError: the generation is not the current one.
        InvalidArgumentError: a rank does not exist, a counter is beyond belief, or the start
            placement is none.
    """
    generation, topology = deployment.generation, deployment.spec.topology
    if hello.generation not in (0, generation):
        raise FailedPreconditionError(
            f"Expected generation {generation} (or 0), got {hello.generation}.",
            field="hello.generation",
            reason="STALE_GENERATION",
        )
    if hello.ranks[-1] >= topology.num_ranks:
        raise InvalidArgumentError(
            f"Expected ranks below {topology.num_ranks}, got {hello.ranks[-1]}.",
            field="hello.ranks",
        )
    _check_claim(hello.highest_version, deployment.head, "hello.highest_version")
    _check_claim(hello.highest_epoch, epoch, "hello.highest_epoch")
    if hello.initial_phy2log is not None:
        at = "hello.initial_phy2log"
        check_placement(hello.initial_phy2log, deployment.spec, at, may_fill_masked=True)


def _check_claim(claim: int, current: int, at: str) -> None:
    """Refuses a counter that would leave the planner no room above it."""
    most = max(current, limits.MAX_CLAIM)
    if claim > most:
        raise InvalidArgumentError(f"Expected at most {most}, got {claim}.", field=at)


def check_same_start(
    hello: Hello, current: np.ndarray[Any, Any], members: Iterable[Member]
) -> None:
    """Refuses a start placement that is not the one of the other members.

    Raises:
        InvalidArgumentError: it is another.
    """
    if hello.initial_phy2log is None or np.array_equal(hello.initial_phy2log, current):
        return
    for member in members:
        if member.hello.participant != hello.participant:
            raise InvalidArgumentError(
                f"Expected the start placement of {member.hello.participant}, got another.",
                field="hello.initial_phy2log",
                reason="INITIAL_PLACEMENT_MISMATCH",
            )
