"""vLLM's data, which has a row per MoE layer. vLLM itself reads and writes no such file.

Recordings: the JSON of the ADRS traces, `load_history`, a sample per entry. Placements: what a
policy's `rebalance_experts` returns, an int64 tensor [MoE layers, slots], as `.pt`.

Source: vllm `distributed/eplb/policy/abstract.py`; the data set of openevolve's EPLB example.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from expertplane_client.errors import FormatError

from .containers import Container
from .json_file import dump_json, member_of, numbers_of
from .profiles import VLLM
from .rows import Rows
from .tables import LoadFormat, LoadTable, PlacementFormat, PlacementTable
from .torch_file import TorchFile, tensor_of, torch_bytes


if TYPE_CHECKING:
    from .placement import PlacementMap
    from .recording import Recording


_HISTORY = "load_history"
_LOAD = "logical_expert_load"


def _parse_history(document: Any, source: str) -> LoadTable:
    history = member_of(document, _HISTORY, list, source=source)
    entries = [
        member_of(entry, _LOAD, list, source=f"{source}:{_HISTORY}[{index}]")
        for index, entry in enumerate(history)
    ]
    samples = numbers_of(entries, source=f"{source}:{_HISTORY}", dimensions=(3,))
    return LoadTable(samples=samples, rows=Rows.MOE)


def _encode_history(recording: Recording) -> bytes:
    samples = recording.whole_samples().tolist()
    return dump_json({_HISTORY: [{_LOAD: rows} for rows in samples]})


def _parse_tensor(file: TorchFile, source: str) -> PlacementTable:
    phy2log = tensor_of(file, file.content, source=source)
    if phy2log.ndim != 2 or phy2log.dtype.kind != "i":
        raise FormatError(
            f"Expected {source} to be a tensor of integers [layers, slots], got "
            f"{phy2log.dtype.name} {list(phy2log.shape)}."
        )
    return PlacementTable(phy2log=phy2log, rows=Rows.MOE)


def _encode_tensor(placement: PlacementMap) -> bytes:
    return torch_bytes(placement.phy2log)


LOAD = LoadFormat(
    name="vllm-json",
    description="vLLM load_history, as in the ADRS traces",
    containers=(Container.JSON,),
    is_it=lambda document: type(document) is dict and _HISTORY in document,
    parse=_parse_history,
    encode=_encode_history,
)
PLACEMENT = PlacementFormat(
    name="vllm",
    description="vLLM's tensor of a policy, .pt",
    container=Container.TORCH,
    is_it=lambda file: True,
    parse=_parse_tensor,
    encode=_encode_tensor,
    profile=VLLM,
)
