"""The copies of weights that lead from one plan to the next, as the planner tells them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from expertplane.v1 import plan_pb2

from .names import bare_name


if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS = ("layer", "logical_expert", "source_slot", "target_slot", "round")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Transfers:
    """Every copy of a migration, by layer and round.

    In one round of a layer a rank sends at most one expert and receives at most one.
    """

    parent_version: int
    """The plan whose slots the sources refer to; 0 is the engine's start placement, or the
    incumbent of a ComputePlan call."""

    table: NDArray[np.int64]
    """[num_transfers, 5] int64, read-only: layer, logical expert, source slot, target slot and
    round, see `COLUMNS`."""

    links: tuple[str, ...]
    """What each copy crosses: "SAME_RANK", "SAME_NODE", "CROSS_NODE", or "STORAGE", where the
    source slot is 0 and means nothing."""

    total_bytes: int
    """Traffic over all links; 0 when the size of an expert is not known."""

    estimated_s: float
    """Expected duration, in seconds; 0 when the size of an expert is not known."""

    @classmethod
    def from_message(cls, message: plan_pb2.TransferSchedule) -> Transfers:
        """Returns the migration that a message carries."""
        rows = [[getattr(each, name) for name in COLUMNS] for each in message.transfers]
        table = np.array(rows, dtype=np.int64).reshape(-1, len(COLUMNS))
        table.flags.writeable = False
        return cls(
            parent_version=message.parent_version,
            table=table,
            links=tuple(
                bare_name(plan_pb2.LinkClass, each.link_class) for each in message.transfers
            ),
            total_bytes=message.total_bytes,
            estimated_s=message.estimated_s,
        )
