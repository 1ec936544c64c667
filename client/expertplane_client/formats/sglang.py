"""SGLang's files. They all have a row per hidden layer, dense layers included.

Recordings: the recorder's `.pt` in the modes stat and stat_approx (`logical_count` [passes,
layers, experts], the ring buffer, unordered), the same as JSON, and the mode per_pass (module
`sglang_per_pass`). Placements: what `--init-expert-location` reads, an object with exactly one
key, because SGLang passes it on as keyword arguments.

Source: sglang `srt/eplb/expert_distribution.py` and `expert_location.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane_client.errors import FormatError

from .containers import Container
from .json_file import dump_json, keys_of, member_of, numbers_of
from .profiles import SGLANG
from .rows import Rows
from .tables import LoadFormat, LoadTable, PlacementFormat, PlacementTable
from .torch_file import TorchFile, tensor_of


if TYPE_CHECKING:
    from .placement import PlacementMap
    from .recording import Recording


_COUNT = "logical_count"
_MAP = "physical_to_logical_map"


def _parse_json(document: Any, source: str) -> LoadTable:
    rows = member_of(document, _COUNT, list, source=source)
    samples = numbers_of(rows, source=f"{source}:{_COUNT}", dimensions=(2, 3))
    return LoadTable(samples=samples, rows=Rows.HIDDEN)


def _encode_json(recording: Recording) -> bytes:
    samples = recording.all_rows()
    return dump_json({_COUNT: (samples if len(samples) > 1 else samples[0]).tolist()})


def _parse_stat(file: TorchFile, source: str) -> LoadTable:
    if not _has_key(file.content, _COUNT):
        raise FormatError(
            f"Expected {source} to be a dict with {_COUNT!r}, got {type(file.content).__name__}."
        )
    samples = tensor_of(file, file.content[_COUNT], source=f"{source}:{_COUNT}")
    if samples.ndim != 3:
        return LoadTable(samples=samples, rows=Rows.HIDDEN)
    is_filled = samples.any(axis=(1, 2))
    if not is_filled.any():
        raise FormatError(f"Expected at least one pass with load in {source}, got none.")
    num_empty = int((~is_filled).sum())
    notes = (
        f"Left out {num_empty} of {len(samples)} passes without any token, which the recorder had "
        f"not filled yet.",
    )
    return LoadTable(
        samples=samples[is_filled], rows=Rows.HIDDEN, notes=notes if num_empty else ()
    )


def _parse_placement(document: Any, source: str) -> PlacementTable:
    rows = member_of(document, _MAP, list, source=source)
    if len(document) != 1:
        raise FormatError(
            f"Expected {source} to have the key {_MAP!r} and no other, got {keys_of(document)}."
        )
    phy2log = numbers_of(rows, source=f"{source}:{_MAP}", dimensions=(2,), is_whole=True)
    return PlacementTable(phy2log=phy2log, rows=Rows.HIDDEN)


def _encode_placement(placement: PlacementMap) -> bytes:
    num_rows = placement.num_rows or placement.num_layers
    # Dense layers need a row of valid experts, which SGLang never uses.
    start = np.arange(placement.num_slots) % placement.num_logical_experts
    every = np.tile(start, (num_rows, 1))
    every[list(placement.layer_ids)] = placement.phy2log
    return dump_json({_MAP: every.tolist()})


def _has_key(found: object, key: str) -> bool:
    return isinstance(found, dict) and key in found


LOAD_JSON = LoadFormat(
    name="sglang-json",
    description="SGLang's logical_count as JSON",
    containers=(Container.JSON,),
    is_it=lambda document: _has_key(document, _COUNT),
    parse=_parse_json,
    encode=_encode_json,
)
LOAD_STAT = LoadFormat(
    name="sglang-pt",
    description="SGLang's recorder, modes stat and stat_approx",
    containers=(Container.TORCH,),
    is_it=lambda file: _has_key(file.content, _COUNT),
    parse=_parse_stat,
)
PLACEMENT = PlacementFormat(
    name="sglang",
    description="SGLang's --init-expert-location",
    container=Container.JSON,
    is_it=lambda document: _has_key(document, _MAP) and "model_class" not in document,
    parse=_parse_placement,
    encode=_encode_placement,
    profile=SGLANG,
)
