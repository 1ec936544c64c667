"""A replay as people and machines read it. Needs rich."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from .titles import title_of


if TYPE_CHECKING:
    from collections.abc import Mapping

    from expertplane_planner.replay import ReplayReport, ReplayRow


def replay_table(report: ReplayReport, sizes: Mapping[str, Any]) -> Table:
    """Return a replay for people: a row per policy between `static` and `oracle`.

    Args:
        report: What to show.
        sizes: The problem's, by name.
    """
    table = Table(title=escape(replay_title(report, sizes)), title_justify="left")
    columns = ("policy", "balancedness", "layers' mean", "worst layer", "gap closed")
    for name in (*columns, "moved slots per layer", "seconds"):
        table.add_column(name, justify="left" if name == "policy" else "right")
    rows = report.rows
    best = max(rows[1:-1], key=lambda row: row.balancedness)
    for row in rows:
        style = "bold" if row is best else None
        is_apart = row is rows[0] or row is rows[-2]
        table.add_row(*_cells(row), style=style, end_section=is_apart)
    return table


def replay_title(report: ReplayReport, sizes: Mapping[str, Any]) -> str:
    """Return what stands above a replay's table and picture."""
    scored = f"windows {report.warmup_windows + 1}-{report.num_windows} of {report.num_windows}"
    pace = f"a plan every {report.every} steps"
    if report.move_budget is not None:
        pace += f", a move budget of {report.move_budget}"
    return title_of(sizes, str(report.mode), scored, pace)


def _cells(row: ReplayRow) -> list[str]:
    return [
        escape(row.name),
        *(f"{figure:.4f}" for figure in (row.balancedness, row.mean, row.minimum)),
        "-" if row.gap_closed is None else f"{row.gap_closed:.1%}",
        f"{row.moved_slots_per_layer:.1f}",
        f"{row.seconds_median:.3f}",
    ]


def replay_document(report: ReplayReport) -> dict[str, Any]:
    """Return a replay for machines."""
    return {
        "mode": str(report.mode),
        "num_windows": report.num_windows,
        "warmup_windows": report.warmup_windows,
        "num_samples": report.num_samples,
        "every": report.every,
        "move_budget": report.move_budget,
        "policies": {row.name: _row(row) for row in report.rows},
    }


def _row(row: ReplayRow) -> dict[str, Any]:
    return {
        "balancedness": row.balancedness,
        "per_window": list(row.per_window),
        "mean": row.mean,
        "minimum": row.minimum,
        "per_layer": list(row.per_layer),
        "per_layer_minimum": list(row.per_layer_minimum),
        "gap_closed": row.gap_closed,
        "num_plans": row.num_plans,
        "moved_slots_per_layer": row.moved_slots_per_layer,
        "moved_by_layer": list(row.moved_by_layer),
        "seconds_median": row.seconds_median,
    }
