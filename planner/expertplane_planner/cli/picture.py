"""The look that all pictures share. Needs matplotlib; keeps no state of pyplot's."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar


# Okabe and Ito, "Color Universal Design", 2008, the darker colours first; told apart with any kind
# of colour vision.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
QUIET = "#8A8A8A"
_INK = "#333333"
_GRID = "#E3E3E3"
_DPI = 160
_PAD = 0.09  # inches around all axes


def new_figure(width: float, height: float, *, title: str) -> Figure:
    """Return an empty figure.

    Args:
        width: In inches.
        height: In inches.
        title: Above everything, on the left.
    """
    layout = ConstrainedLayoutEngine(w_pad=_PAD, h_pad=_PAD)
    figure = Figure(figsize=(width, height), dpi=_DPI, layout=layout)
    figure.suptitle(title, fontsize=12.5, color=_INK, x=0.01, ha="left")
    return figure


def style_axes(
    axes: Axes, *, title: str, x_label: str, y_label: str, has_frame: bool = False
) -> None:
    """Give axes their labels, and take away the lines that mean nothing.

    Args:
        axes: What to style.
        title: Above, on the left.
        x_label: Below.
        y_label: On the left.
        has_frame: Whether to keep the lines above and on the right.
    """
    axes.set_title(title, loc="left", fontsize=11, color=_INK, pad=9)
    axes.set_xlabel(x_label, fontsize=9.5, color=_INK)
    axes.set_ylabel(y_label, fontsize=9.5, color=_INK)
    axes.tick_params(labelsize=8.5, labelcolor=_INK, color=QUIET, length=3, width=0.7)
    for side, spine in axes.spines.items():
        spine.set_visible(has_frame or side in ("left", "bottom"))
        spine.set_color(QUIET)
        spine.set_linewidth(0.7)


def style_bar(bar: Colorbar, *, label: str) -> None:
    """Give the scale of a heat map its label."""
    bar.set_label(label, fontsize=9.5, color=_INK)
    bar.ax.tick_params(labelsize=8.5, labelcolor=_INK, color=QUIET, length=3, width=0.7)
    bar.outline.set_linewidth(0.0)


def add_grid(axes: Axes) -> None:
    """Add quiet horizontal lines behind the data."""
    axes.grid(visible=True, axis="y", color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)


def png_of(figure: Figure) -> bytes:
    """Return a figure as a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")  # by Agg, whatever the display
    return buffer.getvalue()
