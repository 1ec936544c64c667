"""Log lines for people or for machines, configured once, before grpc is used."""

from __future__ import annotations

import json
import logging
import sys


class JsonFormatter(logging.Formatter):
    """One JSON object a line, its time in seconds since 1970."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the record as JSON."""
        entry = {
            "time_s": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def configure_logs(log_format: str, level: str = "INFO") -> None:
    """Sends log lines to stderr.

    Args:
        log_format: "json" or "text".
        level: The least level shown.
    """
    plain = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else plain)
    logging.basicConfig(level=level, handlers=[handler], force=True)
