"""A sweep over redundancy alone as a picture. Needs matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.ticker import PercentFormatter

from .picture import PALETTE, add_grid, new_figure, png_of, style_axes
from .titles import title_of


if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from .sweeping import SweepRow


def sweep_picture(rows: Sequence[SweepRow], policy: str, sizes: Mapping[str, Any]) -> bytes:
    """Return a PNG of a sweep over redundancy, with one spill or none.

    Args:
        rows: A row per redundancy.
        policy: What made the plans.
        sizes: The problem's, by name.
    """
    spill = () if rows[0].spill is None else (f"spill {rows[0].spill}",)
    figure = new_figure(11.0, 4.6, title=title_of(sizes, policy, str(rows[0].mode), *spill))
    left, right = figure.subplots(1, 2)
    _draw_balancedness(left, rows)
    _draw_step_time(right, rows)
    return png_of(figure)


def _draw_balancedness(axes: Axes, rows: Sequence[SweepRow]) -> None:
    series = (
        ("overall", [row.balance.balancedness for row in rows], PALETTE[0], "o"),
        ("worst layer", [row.balance.minimum for row in rows], PALETTE[1], "s"),
    )
    for name, values, colour, marker in series:
        axes.plot(
            range(len(rows)),
            values,
            label=name,
            color=colour,
            marker=marker,
            markersize=5,
            linewidth=1.6,
            clip_on=False,
        )
    axes.set_ylim(top=1.0)
    axes.legend(loc="best", frameon=False, fontsize=9)
    _finish(axes, rows, title="Balancedness", y_label="mean / max rank load")


def _draw_step_time(axes: Axes, rows: Sequence[SweepRow]) -> None:
    times = [row.relative_step_time for row in rows]
    bars = axes.bar(range(len(rows)), times, width=0.6, color=PALETTE[4])
    axes.bar_label(bars, labels=[f"{time:.1%}" for time in times], fontsize=8.5, padding=2)
    axes.set_ylim(0.0, 1.12 * max(times))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    _finish(
        axes,
        rows,
        title=f"Step time, relative to redundancy {rows[0].redundancy}",
        y_label="load of the busiest rank, all layers",
    )


def _finish(axes: Axes, rows: Sequence[SweepRow], *, title: str, y_label: str) -> None:
    # Evenly spaced, so that the labels of 0, 8, 16 and 512 do not run into each other.
    axes.set_xticks(
        range(len(rows)), [f"{row.redundancy}\n({row.slots_per_rank})" for row in rows]
    )
    style_axes(
        axes,
        title=title,
        x_label="redundant experts per layer (slots per rank)",
        y_label=y_label,
    )
    add_grid(axes)
