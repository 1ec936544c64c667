"""YAML with bounds: plain mappings, lists, integers and text, and no way to repeat a part."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from expertplane_client.errors import FormatError

from .files import load_package, read_bytes


if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


MAX_YAML_BYTES = 2**24
_MAX_DEPTH = 8
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")  # 010 would be 8 in YAML 1.1
_LONG_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,19})")
_FRACTION = re.compile(r"[-+]?[0-9]{1,32}(?=[.eE])(\.[0-9]{0,32})?([eE][-+]?[0-9]{1,3})?")
_FLAGS = {"true": True, "false": False}


def read_yaml(file: Path, *, is_settings: bool = False) -> Any:
    """Returns the document of a YAML file: dicts, lists, integers and text.

    Built from the parser's events: nothing but these four can come out, aliases cannot blow a
    small file up, and a key that is repeated is seen.

    Args:
        file: The file.
        is_settings: Whether plain fractions, true, false and integers of 19 and 20 digits are
            what they look like; they are text otherwise.

    Raises:
        FormatError: it cannot be read, is no YAML, or holds anything else.
    """
    content = read_bytes(file, max_bytes=MAX_YAML_BYTES)
    yaml = load_package("yaml", extra="formats")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where it is there
    try:
        return _document_of(yaml, yaml.parse(content, Loader=loader), is_settings)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        text = " ".join(str(error).split())[:200]
        raise FormatError(f"Expected {file} to hold plain YAML, got: {text}") from error


def _document_of(yaml: Any, events: Iterator[Any], is_settings: bool) -> Any:
    root: list[Any] = []
    open_parts: list[list[Any]] = [root]  # of a mapping, its keys and values in turn
    for event in events:
        if getattr(event, "anchor", None):  # an alias has the one that it points to
            raise ValueError("an anchor or alias.")
        if isinstance(event, yaml.ScalarEvent):
            open_parts[-1].append(_scalar_of(event, is_settings))
        elif isinstance(event, yaml.CollectionStartEvent):
            if event.tag is not None or len(open_parts) > _MAX_DEPTH:
                raise ValueError(f"a tag, or more than {_MAX_DEPTH} levels.")
            open_parts.append([])
        elif isinstance(event, yaml.CollectionEndEvent):
            part = open_parts.pop()
            is_mapping = isinstance(event, yaml.MappingEndEvent)
            open_parts[-1].append(_mapping_of(part) if is_mapping else part)
    if len(root) != 1:
        raise ValueError(f"{len(root)} documents.")
    return root[0]


def _scalar_of(event: Any, is_settings: bool) -> int | float | str:
    if event.tag is not None:
        raise ValueError(f"the tag {event.tag!r}.")
    text: str = event.value
    is_plain = event.implicit[0]
    if not is_plain:
        return text
    if (_LONG_INTEGER if is_settings else _INTEGER).fullmatch(text):
        return int(text)
    if is_settings and text in _FLAGS:
        return _FLAGS[text]
    if is_settings and _FRACTION.fullmatch(text):
        return float(text)
    return text


def _mapping_of(part: list[Any]) -> dict[int | str, Any]:
    keys = part[::2]
    if not all(isinstance(key, int | str) for key in keys) or len(set(keys)) != len(keys):
        raise ValueError("a key that is repeated, or no text or number.")
    return dict(zip(keys, part[1::2], strict=True))
