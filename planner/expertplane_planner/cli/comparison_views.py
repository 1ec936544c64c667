"""A comparison as people and machines read it. Needs rich and torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from .comparison import Failure
from .titles import title_of


if TYPE_CHECKING:
    from collections.abc import Mapping

    from expertplane_planner import Mode

    from .comparison import Comparison, Entry, Outcome


def comparison_table(comparison: Comparison, sizes: Mapping[str, Any]) -> Table:
    """Return the comparison for people: a row per policy under one of the baseline.

    Args:
        comparison: What to show.
        sizes: The problem's, by name.
    """
    table = Table(
        title=escape(title_of(sizes, str(comparison.mode))),
        title_justify="left",
    )
    has_moves = any(outcome.moved_slots is not None for outcome in comparison.outcomes)
    has_foreign = any(outcome.foreign_replicas is not None for outcome in comparison.outcomes)
    columns = ["policy", "balancedness", "layers' mean", "worst layer", "duplicates"]
    columns += ["most foreign"] if has_foreign else []
    columns += ["moved slots", "per layer"] if has_moves else []
    for name in (*columns, "seconds"):
        table.add_column(name, justify="left" if name == "policy" else "right")
    num_others = len(table.columns) - 5
    table.add_row(
        *_figures(comparison.baseline), *("-" for _ in range(num_others)), end_section=True
    )
    for result in comparison.results:
        style = "bold" if result is comparison.best else None
        table.add_row(*_cells(result, len(table.columns)), style=style)
    return table


def _cells(result: Outcome | Failure, num_columns: int) -> list[str]:
    if isinstance(result, Failure):
        return [escape(result.name), "[red]failed[/red]", *("-" for _ in range(num_columns - 2))]
    cells = _figures(result)
    if result.foreign_replicas is not None:
        cells.append(str(max(result.foreign_replicas)))
    if result.moved_slots is not None:
        total = sum(result.moved_slots)
        cells += [str(total), f"{total / len(result.moved_slots):.1f}"]
    return [*cells, f"{result.solve_s:.3f}"]


def _figures(entry: Entry) -> list[str]:
    balance = entry.balance
    figures = (balance.balancedness, balance.mean, balance.minimum)
    return [
        escape(entry.name),
        *(f"{figure:.4f}" for figure in figures),
        str(entry.num_duplicates),
    ]


def comparison_document(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison for machines."""
    return {
        "baseline": {"name": comparison.baseline.name, **_balance(comparison.baseline)},
        "policies": {
            result.name: _result(result, comparison.mode) for result in comparison.results
        },
    }


def _result(result: Outcome | Failure, mode: Mode) -> dict[str, Any]:
    if isinstance(result, Failure):
        return {"error": result.message}
    moved = result.moved_slots
    return {
        **_balance(result),
        "mode": str(mode),
        "moved_slots": None if moved is None else sum(moved),
        "moved_slots_per_layer": None if moved is None else list(moved),
        "foreign_replicas": (
            None if result.foreign_replicas is None else list(result.foreign_replicas)
        ),
        "seconds": result.solve_s,
    }


def _balance(entry: Entry) -> dict[str, Any]:
    return {
        "balancedness": entry.balance.balancedness,
        "mean": entry.balance.mean,
        "minimum": entry.balance.minimum,
        "duplicates": entry.num_duplicates,
        "per_layer": list(entry.balance.per_layer),
    }
