"""A sweep over spill as a picture, a curve per redundancy. Needs matplotlib."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from matplotlib.ticker import PercentFormatter

from .picture import PALETTE, add_grid, new_figure, png_of, style_axes
from .titles import title_of


if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from .sweeping import SweepRow


_MARKERS = "os^Dv*P"
_TICK_ROOM = 0.045  # of the axis, so that the labels of 0, 1 and 64 do not run into each other
_MAX_LABELLED_BARS = 10  # more run into each other


def spill_picture(rows: Sequence[SweepRow], policy: str, sizes: Mapping[str, Any]) -> bytes:
    """Return a PNG of a sweep over several spills.

    Args:
        rows: A row per redundancy and spill, redundancy by redundancy.
        policy: What made the plans.
        sizes: The problem's, by name.
    """
    curves = [list(same) for _, same in itertools.groupby(rows, key=lambda row: row.redundancy)]
    only = (f"redundancy {rows[0].redundancy}",) if len(curves) == 1 else ()
    figure = new_figure(11.0, 4.6, title=title_of(sizes, policy, str(rows[0].mode), *only))
    left, right = figure.subplots(1, 2)
    _draw_balancedness(left, curves)
    _draw_step_time(right, curves)
    return png_of(figure)


def _draw_balancedness(axes: Axes, curves: Sequence[Sequence[SweepRow]]) -> None:
    spills = [row.spill or 0 for row in curves[0]]
    for number, rows in enumerate(curves):
        covered = len(curves) - 1 - number  # curves to come: they may hide this one, a thicker one
        axes.plot(
            spills,
            [row.balance.balancedness for row in rows],
            label="overall" if len(curves) == 1 else f"redundancy {rows[0].redundancy}",
            color=PALETTE[number % len(PALETTE)],
            marker=_MARKERS[number % len(_MARKERS)],
            markersize=5 + 1.0 * covered,
            linewidth=1.6 + 0.5 * covered,
            clip_on=False,
        )
    if len(curves) == 1:
        axes.plot(
            spills,
            [row.balance.minimum for row in curves[0]],
            label="worst layer",
            color=PALETTE[1],
            marker="s",
            markersize=5,
            linewidth=1.6,
            clip_on=False,
        )
    axes.set_ylim(top=1.0)
    axes.set_xticks(_ticks(spills))
    axes.legend(loc="best", frameon=False, fontsize=9)
    style_axes(
        axes,
        title="Balancedness" if len(curves) == 1 else "Balancedness, all layers",
        x_label="foreign replicas allowed per layer",
        y_label="mean / max rank load",
    )
    add_grid(axes)


def _draw_step_time(axes: Axes, curves: Sequence[Sequence[SweepRow]]) -> None:
    first = curves[0]
    is_one = len(curves) == 1
    width = (0.6 if is_one else 0.8) / len(curves)
    for number, rows in enumerate(curves):
        offset = (number - (len(curves) - 1) / 2) * width
        times = [row.relative_step_time for row in rows]
        bars = axes.bar(
            [place + offset for place in range(len(rows))],
            times,
            width=width,
            color=PALETTE[4] if is_one else PALETTE[number % len(PALETTE)],
        )
        if len(rows) * len(curves) <= _MAX_LABELLED_BARS:
            axes.bar_label(bars, labels=[f"{time:.1%}" for time in times], fontsize=8, padding=2)
    highest = max(row.relative_step_time for rows in curves for row in rows)
    axes.set_ylim(0.0, 1.12 * highest)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    # Evenly spaced, so that all bars are equally wide.
    labels = [
        f"{row.spill}\n({row.foreign_replicas})" if is_one else f"{row.spill}" for row in first
    ]
    axes.set_xticks(range(len(first)), labels)
    base = f"spill {first[0].spill}"
    style_axes(
        axes,
        title="Step time, relative to "
        + (base if is_one else f"redundancy {first[0].redundancy}, {base}"),
        x_label="foreign replicas allowed per layer" + (" (used)" if is_one else ""),
        y_label="load of the busiest rank, all layers",
    )
    add_grid(axes)


def _ticks(spills: Sequence[int]) -> list[int]:
    """Return the spills whose labels have room on an axis that is as long as them all."""
    room = _TICK_ROOM * (spills[-1] - spills[0])
    ticks = [spills[-1]]
    for spill in reversed(spills):
        if ticks[-1] - spill >= room:
            ticks.append(spill)
    return ticks
