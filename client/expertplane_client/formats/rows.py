"""Which layers of the model the rows of a file stand for: never guessed, see `Rows`."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from expertplane_client.errors import FormatError

from .layer_ids import MAX_LAYERS


if TYPE_CHECKING:
    from collections.abc import Sequence


class Rows(enum.Enum):
    """What a format's rows are, and what a caller's layer ids do with them."""

    HIDDEN = "a row per hidden layer"
    """The row index is the model's layer number, dense layers included; layer ids pick rows."""

    MOE = "a row per MoE layer"
    """The file does not say which layers they are; layer ids name all rows, in their order."""

    KEYED = "the model's layer numbers in the file"
    """Layer ids pick among them."""

    EITHER = "rows of either kind"
    """As many layer ids as rows name them, fewer pick rows. The two never contradict each other:
    who picks all rows by index gives them the names that they have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowChoice:
    """Rows that are kept, and the layers that they are."""

    indices: tuple[int, ...]
    """Rows of the file that are kept, ascending."""

    layer_ids: tuple[int, ...]
    """The model's layer number of every kept row, ascending."""

    num_rows: int | None
    """Rows of a file that has a row per hidden layer; None when that is not known."""


def choose_rows(
    rows: Rows,
    num_rows: int,
    layer_ids: Sequence[int] | None,
    *,
    keys: Sequence[int] = (),
    source: str,
) -> RowChoice:
    """Returns the rows that are kept.

    Args:
        rows: What the rows are.
        num_rows: How many the file has.
        layer_ids: The caller's choice, see `Rows`; None keeps all rows, counted from 0 where the
            file does not number them.
        keys: For `Rows.KEYED`, the layer number of every row, ascending.
        source: Where the rows come from, for messages.

    Raises:
        FormatError: layer ids that are not ascending, or do not fit the rows.
    """
    if num_rows > MAX_LAYERS:
        raise FormatError(f"Expected {source} of at most {MAX_LAYERS} rows, got {num_rows}.")
    chosen = None if layer_ids is None else check_ascending(tuple(layer_ids))
    if rows is Rows.KEYED:
        return _choose_keyed(tuple(keys), chosen, source)
    if chosen is None:
        known = num_rows if rows is Rows.HIDDEN else None
        every = tuple(range(num_rows))
        return RowChoice(indices=every, layer_ids=every, num_rows=known)
    is_named = len(chosen) == num_rows and rows is not Rows.HIDDEN
    if is_named:
        return RowChoice(indices=tuple(range(num_rows)), layer_ids=chosen, num_rows=None)
    if rows is Rows.MOE:
        raise FormatError(
            f"Expected layer ids for all {num_rows} rows of {source}, which has {rows.value}, "
            f"got {len(chosen)}."
        )
    if chosen[-1] >= num_rows:
        raise FormatError(f"Expected layers of {source} below {num_rows}, got {chosen[-1]}.")
    return RowChoice(indices=chosen, layer_ids=chosen, num_rows=num_rows)


def check_ascending(layer_ids: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the layer ids.

    Raises:
        FormatError: there are none, or they are negative, out of order or repeated.
    """
    is_ascending = all(a < b for a, b in zip(layer_ids, layer_ids[1:], strict=False))
    if not layer_ids or layer_ids[0] < 0 or not is_ascending:
        raise FormatError(
            f"Expected layer ids, ascending and without repeats, got {list(layer_ids)[:16]}."
        )
    return layer_ids


def _choose_keyed(keys: tuple[int, ...], chosen: tuple[int, ...] | None, source: str) -> RowChoice:
    check_ascending(keys)
    if chosen is None:
        return RowChoice(indices=tuple(range(len(keys))), layer_ids=keys, num_rows=None)
    positions = {key: position for position, key in enumerate(keys)}
    missing = [layer_id for layer_id in chosen if layer_id not in positions]
    if missing:
        raise FormatError(
            f"Expected layers that {source} holds, {keys[0]} to {keys[-1]}, got {missing[:8]}."
        )
    indices = tuple(positions[layer_id] for layer_id in chosen)
    return RowChoice(indices=indices, layer_ids=chosen, num_rows=None)
