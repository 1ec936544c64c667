"""Lists of layers as people write them: "3-60,62"."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from expertplane_client.errors import FormatError


if TYPE_CHECKING:
    from collections.abc import Sequence


MAX_LAYERS = 4096
"""Bound of a list, so that a slip such as "3-600000000" costs a message and not the memory."""

_RANGE = re.compile(r"\s*(?P<first>[0-9]{1,9})\s*(?:-\s*(?P<last>[0-9]{1,9})\s*)?")


def parse_layer_ids(text: str) -> tuple[int, ...]:
    """Returns the layers of a list of numbers and ranges; both ends of a range belong to it.

    Args:
        text: Such as "3-60,62".

    Raises:
        FormatError: it is no such list, not ascending, or of more than 4096 layers.
    """
    layer_ids: list[int] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise FormatError(f"Expected layers such as '3-60,62', got {text!r}.")
        first = int(match["first"])
        last = int(match["last"] or first)
        if last < first or last - first >= MAX_LAYERS or (layer_ids and first <= layer_ids[-1]):
            raise FormatError(f"Expected at most {MAX_LAYERS} ascending layers, got {text!r}.")
        layer_ids += range(first, last + 1)
    return tuple(layer_ids)


def format_layer_ids(layer_ids: Sequence[int]) -> str:
    """Returns ascending layers as people write them; `parse_layer_ids` reads it back."""
    ranges: list[list[int]] = []
    for layer_id in layer_ids:
        if ranges and layer_id == ranges[-1][1] + 1:
            ranges[-1][1] = layer_id
        else:
            ranges.append([layer_id, layer_id])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)
