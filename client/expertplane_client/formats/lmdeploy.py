"""lmdeploy's recording: a JSON list of hidden layers, each a list of whole token counts.

lmdeploy plans by itself from this file (`LMDEPLOY_EPLB_EXPERTS_STATISTIC_FILE`); it reads no
placement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane_client.errors import FormatError

from .containers import Container
from .json_file import dump_json, numbers_of
from .rows import Rows
from .tables import LoadFormat, LoadTable


if TYPE_CHECKING:
    from .recording import Recording


def _parse(document: Any, source: str) -> LoadTable:
    samples = numbers_of(document, source=source, dimensions=(2,), is_whole=True)
    return LoadTable(samples=samples, rows=Rows.HIDDEN)


def _encode(recording: Recording) -> bytes:
    whole = recording.whole_samples()
    # int64 would wrap around without a word.
    if recording.weight().max() >= 2.0**63:
        raise FormatError(f"Expected sums of {recording.source} below 2**63, got more.")
    total = np.zeros((recording.count_rows(), recording.num_logical_experts), dtype=np.int64)
    total[list(recording.layer_ids)] = whole.sum(axis=0)
    return dump_json(total.tolist())


LOAD = LoadFormat(
    name="lmdeploy",
    description="lmdeploy's statistics, a JSON list",
    containers=(Container.JSON,),
    is_it=lambda document: type(document) is list,
    parse=_parse,
    encode=_encode,
)
