"""JSON with bounds, and the arrays of numbers in it."""

from __future__ import annotations

import json
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane_client.errors import FormatError

from .files import read_bytes


if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from numpy.typing import NDArray


MAX_JSON_BYTES = 2**28
MAX_JSON_VALUES = 2**25  # 2000 samples of DeepSeek-V3
_MAX_DIMENSIONS = 4


def read_json(file: Path) -> Any:
    """Returns the document of a file.

    Raises:
        FormatError: it cannot be read, is no JSON, repeats a key, or is too large.
    """
    return parse_json(read_bytes(file, max_bytes=MAX_JSON_BYTES), source=str(file))


def parse_json(content: bytes, *, source: str) -> Any:
    """Returns the document that bytes are, see `read_json`."""
    # Every value but the first of its list or object has a comma before it.
    num_values = sum(content.count(mark) for mark in (b",", b"[", b"{"))
    if num_values > MAX_JSON_VALUES:
        raise FormatError(
            f"Expected {source} of at most {MAX_JSON_VALUES} values, got {num_values}."
        )
    try:
        return json.loads(content, object_pairs_hook=_object_of, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"Expected {source} to hold JSON, got: {error}.") from error


def is_extra_data(error: FormatError) -> bool:
    """Whether `read_json` refused a file because something follows its document."""
    cause = error.__cause__
    return isinstance(cause, json.JSONDecodeError) and cause.msg == "Extra data"


def numbers_of(
    rows: object, *, source: str, dimensions: Collection[int], is_whole: bool = False
) -> NDArray[Any]:
    """Returns the rectangular array that nested lists are.

    Args:
        rows: Lists of lists of numbers; booleans are none.
        source: Where they come from, for messages.
        dimensions: Depths that are allowed.
        is_whole: Whether only integers are allowed.

    Returns:
        int64, or float64 when there is any float.

    Raises:
        FormatError: another depth, no rectangle, or something else than numbers.
    """
    shape: list[int] = []
    level: list[Any] = [rows]
    while level and type(level[0]) is list and len(shape) < _MAX_DIMENSIONS:
        lengths = {len(part) if type(part) is list else -1 for part in level}
        if len(lengths) != 1:
            raise FormatError(
                f"Expected {source} to be rectangular, got parts of {len(lengths)} lengths."
            )
        shape += lengths
        level = list(chain.from_iterable(level))
    if len(shape) not in dimensions or not level:
        raise FormatError(
            f"Expected {source} to hold lists of numbers, "
            f"{' or '.join(map(str, sorted(dimensions)))} deep, got shape {shape}."
        )
    kinds = set(map(type, level))
    if not kinds <= ({int} if is_whole else {int, float}):
        wanted = "integers" if is_whole else "numbers"
        names = sorted(kind.__name__ for kind in kinds)
        raise FormatError(f"Expected {source} to hold lists of {wanted} only, got {names}.")
    try:
        flat = np.array(level, dtype=np.float64 if float in kinds else np.int64)
    except OverflowError as error:
        raise FormatError(f"Expected {source} to fit 64 bits, got: {error}.") from error
    return flat.reshape(shape)


def member_of(document: object, key: str, kind: type, *, source: str) -> Any:
    """Returns the value of a key in a document, of exactly the type that it must have.

    Raises:
        FormatError: no object, no such key, or another type.
    """
    if type(document) is not dict or key not in document:
        raise FormatError(
            f"Expected {source} to be an object with {key!r}, got "
            f"{keys_of(document) or type(document).__name__}."
        )
    value = document[key]
    if type(value) is not kind:
        raise FormatError(
            f"Expected {key!r} of {source} to be of type {kind.__name__}, "
            f"got {type(value).__name__}."
        )
    return value


def dump_json(document: Any) -> bytes:
    """Returns a document as compact JSON, ended by a newline."""
    return json.dumps(document, allow_nan=False, separators=(", ", ": ")).encode() + b"\n"


def keys_of(document: object) -> list[str]:
    """Returns some of an object's keys, for messages."""
    return [str(key)[:40] for key in list(document)[:8]] if type(document) is dict else []


def brief(found: object) -> str:
    """Returns a value in a few words, for messages: of what may be large, only the type.

    The whole text of a value is never made: what its parts share could make it endless.
    """
    if type(found) is str:
        return repr(found[:40])
    return str(found)[:40] if found is None or type(found) in (int, bool) else type(found).__name__


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key that is repeated in an object")
    return document


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name}, which is no number")
