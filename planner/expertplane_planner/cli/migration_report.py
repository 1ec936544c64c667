"""Gain, cost and transfers of a plan as a report has them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from expertplane_planner import NetBenefit, TransferSchedule


_COLUMNS = ("layer", "expert", "source_slot", "target_slot", "round", "link_class")


def benefit_report(benefit: NetBenefit) -> dict[str, Any]:
    """Return every term of a net benefit by name."""
    return {
        "maximum_before": benefit.maximum_before,
        "maximum_after": benefit.maximum_after,
        "gain": benefit.gain,
        "gain_s": benefit.gain_s,
        "moved_bytes": benefit.moved_bytes,
        "migration_s": benefit.migration_s,
        "cost_s": benefit.cost_s,
        "net_s": benefit.net_s,
        "basis": str(benefit.basis),
        "necessity": None if benefit.necessity is None else str(benefit.necessity),
        "is_worthwhile": benefit.is_worthwhile,
        "terms": dataclasses.asdict(benefit.terms),
    }


def transfers_report(transfers: TransferSchedule) -> dict[str, list[int]]:
    """Return the copies column by column; layers are rows of the recording that was planned."""
    return {name: getattr(transfers, name).tolist() for name in _COLUMNS}
