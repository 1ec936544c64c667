"""Writes placements and reports, each file as a whole or not at all."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane_client.atomic import write_atomically
from expertplane_client.errors import FormatError


if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from numpy.typing import NDArray


def write_plan_npz(
    path: str | os.PathLike[str],
    phy2log: NDArray[np.integer[Any]],
    log2phy: NDArray[np.integer[Any]],
    logcnt: NDArray[np.integer[Any]],
) -> None:
    """Writes the three maps of a plan under their own names, as int64.

    Args:
        path: The file; replaced when it exists.
        phy2log: [num_layers, num_slots], the logical expert of every slot.
        log2phy: [num_layers, num_logical_experts, X], its slots, padded with -1.
        logcnt: [num_layers, num_logical_experts], the number of its replicas.

    Raises:
        FormatError: the file cannot be written.
    """
    buffer = io.BytesIO()
    np.savez(
        buffer,
        # What torch takes as an index, whatever the maps were kept in.
        phy2log=phy2log.astype(np.int64),
        log2phy=log2phy.astype(np.int64),
        logcnt=logcnt.astype(np.int64),
    )
    _write(Path(path), buffer.getvalue())


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
    _write(Path(path), text.encode() + b"\n")


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomically(path, content)
    except OSError as error:
        raise FormatError(f"Expected to write {path}, got: {error.strerror or error}.") from error
