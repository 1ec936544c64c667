"""Log lines for machines and for people."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING

import pytest

from expertplane_client.sidecar.logs import JsonFormatter, configure_logs


if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _root_logger_is_put_back() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_a_json_line_is_one_object() -> None:
    """Line breaks and exceptions stay inside it."""
    try:
        raise ValueError("x")
    except ValueError:
        error = sys.exc_info()
    record = logging.LogRecord("a.b", logging.WARNING, "f.py", 1, "v%d\n", (7,), error)
    record.created = 12.34567
    text = JsonFormatter().format(record)
    entry = json.loads(text)

    assert "\n" not in text
    assert (entry["time_s"], entry["level"], entry["logger"], entry["message"]) == (
        12.346,
        "warning",
        "a.b",
        "v7\n",
    )
    assert "ValueError: x" in entry["exception"]


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_logs_go_to_stderr_from_their_level_on(
    log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stdout is for the one line that says ready."""
    configure_logs(log_format, "WARNING")
    logging.getLogger("a").info("quiet")
    logging.getLogger("a").warning("loud")
    found = capsys.readouterr()

    assert found.out == ""
    assert "loud" in found.err
    assert "quiet" not in found.err
