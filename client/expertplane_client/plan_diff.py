"""What has changed from one plan to another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .transfers import Transfers


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from expertplane.v1 import plan_service_pb2 as plans_pb2

CHANGE_COLUMNS = ("layer", "slot", "from_expert", "to_expert")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlanDiff:
    """The difference of two plans of a deployment."""

    changes: NDArray[np.int64]
    """[num_changes, 4] int64, read-only: layer, slot, the expert that was there and the one that
    is, by layer and slot; see `CHANGE_COLUMNS`. -1 stands for no expert."""

    moved_slots_per_layer: tuple[int, ...]
    """Slots of each layer whose rank has to fetch an expert."""

    transfers: Transfers | None
    """The migration between the two; None where it was not told."""

    @property
    def moved_slots(self) -> int:
        """Slots over all layers whose rank has to fetch an expert."""
        return sum(self.moved_slots_per_layer)

    @classmethod
    def from_message(cls, message: plans_pb2.DiffPlansResponse) -> PlanDiff:
        """Returns the difference that an answer carries."""
        rows = [[getattr(each, name) for name in CHANGE_COLUMNS] for each in message.changes]
        changes = np.array(rows, dtype=np.int64).reshape(-1, len(CHANGE_COLUMNS))
        changes.flags.writeable = False
        has_transfers = message.HasField("transfers")
        return cls(
            changes=changes,
            moved_slots_per_layer=tuple(message.moved_slots_per_layer),
            transfers=Transfers.from_message(message.transfers) if has_transfers else None,
        )
