"""DiffPlans' answer: how one placement differs from another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane.v1 import plan_service_pb2 as pb
from expertplane_server.core.errors import ExhaustedError
from expertplane_server.core.scoring import fetched_slots
from expertplane_server.rpc.convert.plans import transfers_to


if TYPE_CHECKING:
    from expertplane_server.core.plan import Transfers
    from expertplane_server.runtime.jobs import ScheduleJob

_MAX_CHANGES = 2**17
"""Changed slots that are listed: writing so many takes a thread half a second."""


def check_changes(before: np.ndarray[Any, Any], after: np.ndarray[Any, Any]) -> None:
    """Refuses a difference that is too long to list; both are [L, P].

    Raises:
        ExhaustedError: too many slots have changed.
    """
    num_changes = int((before != after).sum())
    if num_changes > _MAX_CHANGES:
        raise ExhaustedError(
            f"Expected at most {_MAX_CHANGES} changed slots, got {num_changes}; "
            "compare the maps of GetPlan.",
            retry_after_s=None,
            reason="PLAN_TOO_LARGE",
        )


def diff_to(
    job: ScheduleJob, transfers: Transfers | None, from_version: int
) -> pb.DiffPlansResponse:
    """Writes a difference that is not too long to list.

    Args:
        job: the two placements.
        transfers: the way from one to the other; None where it is too long.
        from_version: the version that the sources of transfers refer to.
    """
    layers, slots = np.nonzero(job.before != job.after)
    columns = (layers, slots, job.before[layers, slots], job.after[layers, slots])
    moved = fetched_slots(job.before, job.after, job.topology.num_ranks).sum(axis=1)
    return pb.DiffPlansResponse(
        changes=[
            pb.SlotChange(layer=layer, slot=slot, from_expert=before, to_expert=after)
            for layer, slot, before, after in zip(*(c.tolist() for c in columns), strict=True)
        ],
        moved_slots_per_layer=moved.tolist(),
        transfers=transfers_to(transfers, from_version),
    )
