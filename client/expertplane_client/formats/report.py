"""Writes reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .files import write_bytes


if TYPE_CHECKING:
    import os
    from collections.abc import Mapping


def write_report(path: str | os.PathLike[str], report: Mapping[str, Any]) -> None:
    """Writes a report as JSON.

    Args:
        path: The file; replaced when it exists.
        report: What JSON can hold; no NaN and no infinity.

    Raises:
        FormatError: the file cannot be written.
        ValueError: the report holds something that JSON cannot.
    """
    text = json.dumps(report, indent=2, allow_nan=False)
    write_bytes(Path(path), text.encode() + b"\n")
