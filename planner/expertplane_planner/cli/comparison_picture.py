"""A comparison of policies as a picture. Needs matplotlib and torch.

Left, balancedness layer by layer; right, the load of every rank before and after.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.colors import TwoSlopeNorm
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from expertplane_planner import rank_load

from .picture import PALETTE, QUIET, add_grid, new_figure, png_of, style_axes, style_bar
from .titles import title_of


if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure
    from numpy.typing import NDArray

    from expertplane_client.formats import Recording

    from .comparison import Comparison, Entry


_LOSS_FLOOR = 1e-4  # a layer that loses less is drawn as if it lost so much
_TICKS = (0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998, 0.9999)
_MARKERS = "os^Dv*P"
_COLOURS = "RdBu_r"  # red and blue are told apart with any kind of colour vision
_MAX_RELATIVE_LOAD = 3.0  # drawn as one colour from here; more is rare and would hide the rest


def comparison_picture(
    comparison: Comparison, recording: Recording, sizes: Mapping[str, Any]
) -> bytes:
    """Return a PNG of a comparison in which at least one policy succeeded.

    Args:
        comparison: What to draw.
        recording: The load that was planned for.
        sizes: The problem's, by name.
    """
    assert comparison.best is not None
    figure = new_figure(14.0, 6.6, title=title_of(sizes, str(comparison.mode)))
    halves: Any = figure.subfigures(1, 2, width_ratios=(1.15, 1.0), wspace=0.03)
    left, right = halves
    _draw_layers(left.subplots(), comparison, recording.layer_ids)
    _draw_ranks(right, (comparison.baseline, comparison.best), recording)
    return png_of(figure)


def _draw_layers(axes: Axes, comparison: Comparison, layer_ids: tuple[int, ...]) -> None:
    highest_loss, lowest_loss = 0.0, 1.0
    for number, entry in enumerate((comparison.baseline, *comparison.outcomes)):
        loss = np.maximum(1.0 - np.array(entry.balance.per_layer), _LOSS_FLOOR)
        highest_loss = max(highest_loss, float(loss.max()))
        lowest_loss = min(lowest_loss, float(loss.min()))
        is_baseline = number == 0
        axes.plot(
            layer_ids,
            loss,
            label=f"{entry.name}  {entry.balance.balancedness:.4f}",
            color=QUIET if is_baseline else PALETTE[(number - 1) % len(PALETTE)],
            linestyle="--" if is_baseline else "-" if number <= len(PALETTE) else ":",
            marker=None if is_baseline else _MARKERS[(number - 1) % len(_MARKERS)],
            markersize=3.5,
            linewidth=1.2,
        )
    # Nines are told apart on a logarithmic scale of what is missing to 1.
    axes.set_yscale("log")
    axes.set_ylim(min(1.0, 1.25 * highest_loss), 0.8 * lowest_loss)
    axes.yaxis.set_major_locator(FixedLocator([1.0 - tick for tick in _TICKS]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{1.0 - loss:.4g}"))
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    style_axes(
        axes,
        title="Balancedness of each layer; of all layers in the legend",
        x_label="layer",
        y_label="mean / max rank load, scale stretched towards 1",
    )
    add_grid(axes)
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.11),
        ncols=4,
        frameon=False,
        fontsize=8.5,
        handlelength=2.4,
    )


def _draw_ranks(figure: SubFigure, entries: tuple[Entry, ...], recording: Recording) -> None:
    loads = [_relative_load(entry, recording) for entry in entries]
    highest = max(float(load.max()) for load in loads)
    top = min(_MAX_RELATIVE_LOAD, max(1.1, highest))
    norm = TwoSlopeNorm(vcenter=1.0, vmin=0.0, vmax=top)
    panels = figure.subplots(1, len(entries), sharey=True)
    layer_ids = recording.layer_ids
    image: Any = None
    for when, axes, entry, load in zip(("Before", "After"), panels, entries, loads, strict=True):
        image = axes.imshow(load, aspect="auto", cmap=_COLOURS, norm=norm, interpolation="nearest")
        style_axes(
            axes,
            title=f"{when}: {entry.name}\nbusiest rank {load.max():.2f} x mean",
            x_label="rank",
            y_label="layer" if when == "Before" else "",
            has_frame=True,
        )
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(10, integer=True))
        axes.yaxis.set_major_formatter(
            FuncFormatter(
                lambda row, _: str(layer_ids[int(row)]) if 0 <= row < len(layer_ids) else ""
            )
        )
    bar = figure.colorbar(
        image,
        ax=list(panels),
        location="bottom",
        shrink=0.7,
        pad=0.02,
        extend="max" if highest > top else "neither",
    )
    style_bar(bar, label="rank load / mean of the layer")


def _relative_load(entry: Entry, recording: Recording) -> NDArray[np.float64]:
    """Return the load of every rank over its layer's mean, [num_layers, num_ranks]."""
    tokens = rank_load(entry.placement, torch.tensor(recording.weight())).numpy()
    mean = tokens.mean(axis=1, keepdims=True)
    # A layer without load is as even as can be.
    relative: NDArray[np.float64] = np.divide(
        tokens, mean, out=np.ones_like(tokens), where=mean > 0
    )
    return relative
