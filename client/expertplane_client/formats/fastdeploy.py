"""FastDeploy's answer to `/get_per_expert_tokens_stats`, kept as JSON; ranks are summed.

`data` is [tensor-parallel ranks, hidden layers, experts]. FastDeploy plans by itself; it reads no
placement.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from expertplane_client.errors import FormatError

from .containers import Container
from .json_file import brief, member_of, numbers_of
from .rows import Rows
from .tables import LoadFormat, LoadTable


def _parse(document: Any, source: str) -> LoadTable:
    code = member_of(document, "code", int, source=source)
    if code != 0:
        raise FormatError(
            f"Expected {source} with the code 0 of success, got {code}: "
            f"{brief(document.get('msg'))}."
        )
    rows = member_of(document, "data", list, source=source)
    ranks = numbers_of(rows, source=f"{source}:data", dimensions=(3,), is_whole=True)
    if ranks.size and (ranks.min() < 0 or ranks.max() >= 2**62 // len(ranks)):
        raise FormatError(
            f"Expected {source}:data to hold token counts, got {ranks.min()} to {ranks.max()}."
        )
    return LoadTable(samples=ranks.sum(axis=0, dtype=np.int64), rows=Rows.HIDDEN)


LOAD = LoadFormat(
    name="fastdeploy",
    description="FastDeploy's get_per_expert_tokens_stats",
    containers=(Container.JSON,),
    is_it=lambda document: type(document) is dict and {"code", "data"} <= set(document),
    parse=_parse,
)
