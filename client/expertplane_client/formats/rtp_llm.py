"""rtp-llm's history, `gpu_load_*.json`: a JSON document a line, of which `log_stats` is the load.

`log_stats` is [hidden layers, experts], what the balancer had counted when it moved a layer; a
line is a sample. The files end in `.json` though they are none.
"""

from __future__ import annotations

from typing import Any

from expertplane_client.errors import FormatError

from .containers import Container
from .json_file import member_of, numbers_of, parse_json
from .rows import Rows
from .tables import LoadFormat, LoadTable


MAX_LINES = 2**16

_STATS = "log_stats"


def is_history(content: bytes) -> bool:
    """Whether bytes that are no document are a history: whether their first line is an entry."""
    line = content.lstrip().partition(b"\n")[0]
    try:
        return _is_entry(parse_json(line, source="the first line"))
    except FormatError:
        return False


def _is_entry(document: object) -> bool:
    return type(document) is dict and _STATS in document


def _parse(content: bytes | dict[str, Any], source: str) -> LoadTable:
    if isinstance(content, dict):  # a history of one line is a document
        return _table_of([member_of(content, _STATS, list, source=source)], source)
    lines = content.splitlines()
    if len(lines) > MAX_LINES:
        raise FormatError(f"Expected {source} of at most {MAX_LINES} lines, got {len(lines)}.")
    history = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            line_source = f"{source}:{number}"
            document = parse_json(line, source=line_source)
            history.append(member_of(document, _STATS, list, source=line_source))
    return _table_of(history, source)


def _table_of(history: list[Any], source: str) -> LoadTable:
    samples = numbers_of(history, source=f"{source}:{_STATS}", dimensions=(3,))
    return LoadTable(samples=samples, rows=Rows.HIDDEN)


LOAD = LoadFormat(
    name="rtp-llm",
    description="rtp-llm's history, a JSON document a line",
    containers=(Container.JSON_LINES, Container.JSON),
    is_it=lambda content: isinstance(content, bytes) or _is_entry(content),
    parse=_parse,
)
