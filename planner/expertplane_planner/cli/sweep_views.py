"""A sweep as people and machines read it. Needs rich."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from .titles import title_of


if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .sweeping import SweepRow


def sweep_table(rows: Sequence[SweepRow], policy: str, sizes: Mapping[str, Any]) -> Table:
    """Return a sweep for people.

    Args:
        rows: A row per redundancy and spill, redundancy by redundancy.
        policy: What made the plans.
        sizes: The problem's, by name.
    """
    table = Table(
        title=escape(title_of(sizes, policy, str(rows[0].mode))),
        title_justify="left",
    )
    cells = [_cells(row) for row in rows]
    # Of the two gains those that some row has; without spills to compare, as ever, per slot.
    has_spills = any(row.marginal_gain_per_foreign is not None for row in rows)
    has_redundancies = any(row.marginal_gain is not None for row in rows)
    left_out = set() if has_spills else {"gain per foreign"}
    left_out |= {"gain per extra"} if has_spills and not has_redundancies else set()
    names = [name for name in cells[0] if name not in left_out]
    for name in names:
        table.add_column(name, justify="right")
    for row, below, of_row in zip(rows, (*rows[1:], rows[-1]), cells, strict=True):
        table.add_row(
            *(of_row[name] for name in names),
            end_section=has_spills and below.redundancy != row.redundancy,
        )
    return table


def _cells(row: SweepRow) -> dict[str, str]:
    """Return what a row shows, by column."""
    cells = {"redundancy": str(row.redundancy)}
    if row.spill is not None:
        cells |= {"spill": str(row.spill), "foreign": str(row.foreign_replicas)}
    cells |= {
        "slots": str(row.num_slots),
        "per rank": str(row.slots_per_rank),
        "extra": f"{row.extra_slots_per_rank:g}",
    }
    if row.extra_bytes_per_rank is not None:
        cells["extra GB"] = f"{row.extra_bytes_per_rank / 1e9:.2f}"
    return cells | {
        "balancedness": f"{row.balance.balancedness:.4f}",
        "worst layer": f"{row.balance.minimum:.4f}",
        "step time": f"{row.relative_step_time:.4f}",
        "gain per extra": _percent(row.marginal_gain),
        "gain per foreign": _percent(row.marginal_gain_per_foreign),
    }


def _percent(gain: float | None) -> str:
    return "-" if gain is None else f"{gain:.2%}"


def sweep_documents(rows: Sequence[SweepRow]) -> list[dict[str, Any]]:
    """Return the rows of a sweep for machines."""
    return [
        {
            "redundancy": row.redundancy,
            "spill": row.spill,
            "foreign_replicas": row.foreign_replicas,
            "num_slots": row.num_slots,
            "slots_per_rank": row.slots_per_rank,
            "mode": str(row.mode),
            "balancedness": row.balance.balancedness,
            "mean": row.balance.mean,
            "minimum": row.balance.minimum,
            "relative_step_time": row.relative_step_time,
            "marginal_gain": row.marginal_gain,
            "marginal_gain_per_foreign": row.marginal_gain_per_foreign,
            "extra_slots_per_rank": row.extra_slots_per_rank,
            "extra_bytes_per_rank": row.extra_bytes_per_rank,
            "seconds": row.solve_s,
        }
        for row in rows
    ]
