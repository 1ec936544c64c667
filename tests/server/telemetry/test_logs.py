"""Log lines for machines and for people."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any

import pytest

from expertplane_server.telemetry.logs import JsonFormatter, configure_logs


if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _root_logger_is_put_back() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def entry(error: bool = False) -> dict[str, Any]:
    """Format one record."""
    record = logging.LogRecord("a.b", logging.WARNING, "f.py", 1, "v%d \u00e4\n", (7,), None)
    record.created = 12.34567
    if error:
        try:
            raise ValueError("broken")
        except ValueError:
            record.exc_info = sys.exc_info()
    line = JsonFormatter().format(record)
    assert "\n" not in line
    read: dict[str, Any] = json.loads(line)
    return read


def test_one_object_a_line() -> None:
    """A record is one JSON object on one line, whatever its message."""
    assert entry() == {
        "time_s": 12.346,
        "level": "warning",
        "logger": "a.b",
        "message": "v7 \u00e4\n",
    }


def test_exception() -> None:
    """An exception comes with its traceback, on the same line."""
    assert entry(error=True)["exception"].endswith("ValueError: broken")


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The JSON format is JSON, from the least level on."""
    configure_logs("json", "WARNING")
    logging.getLogger("x").info("hidden")
    logging.getLogger("x").warning("shown")

    assert [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()] == [
        "shown"
    ]


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    """The text format is for people; a second configuration replaces the first."""
    configure_logs("json")
    configure_logs("text")
    logging.getLogger("x").info("shown")

    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(" INFO    shown")
