"""A replay as a picture. Needs matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.ticker import MaxNLocator

from .picture import PALETTE, QUIET, add_grid, new_figure, png_of, style_axes
from .replay_views import replay_title


if TYPE_CHECKING:
    from collections.abc import Mapping

    from expertplane_planner.replay import ReplayReport


_MARKERS = "os^Dv*P"


def replay_picture(report: ReplayReport, sizes: Mapping[str, Any]) -> bytes:
    """Return a PNG of the balancedness of every window, a line per policy.

    Args:
        report: What to draw.
        sizes: The problem's, by name.
    """
    figure = new_figure(10.0, 5.2, title=replay_title(report, sizes))
    axes = figure.subplots()
    windows = range(report.warmup_windows + 1, report.num_windows + 1)
    last = len(report.rows) - 1
    for number, row in enumerate(report.rows):
        is_reference = number in (0, last)
        axes.plot(
            windows,
            row.per_window,
            label=f"{row.name}  {row.balancedness:.4f}",
            color=QUIET if is_reference else PALETTE[(number - 1) % len(PALETTE)],
            linestyle="--" if number == 0 else ":" if number == last else "-",
            marker=_MARKERS[number % len(_MARKERS)],
            markersize=3.5,
            linewidth=1.4,
        )
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    style_axes(
        axes,
        title="Balancedness of each window, planned for before it came; of all in the legend",
        x_label="window",
        y_label="mean / max rank load, mean over steps",
    )
    add_grid(axes)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    return png_of(figure)
