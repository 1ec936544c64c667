"""vLLM-Ascend's files.

Recordings: a plain tensor [layers, experts] as `.pt`, the input of its offline example.
Placements: `expert_map.json` of `eplb_config.expert_map_path`. The position in `layer_list` is the
MoE layer; the engine never looks at `layer_id`, nor does the reader here.

Source: vllm-ascend `eplb/core/eplb_utils.py`, `examples/eplb/eplb_strategy.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from expertplane_client.errors import FormatError

from .containers import Container
from .json_file import dump_json, member_of, numbers_of
from .profiles import ASCEND
from .rows import Rows
from .tables import LoadFormat, LoadTable, PlacementFormat, PlacementTable
from .torch_file import TorchFile, is_tensor, tensor_of


if TYPE_CHECKING:
    from .placement import PlacementMap


def _parse_tensor(file: TorchFile, source: str) -> LoadTable:
    return LoadTable(samples=tensor_of(file, file.content, source=source), rows=Rows.EITHER)


def _parse_map(document: Any, source: str) -> PlacementTable:
    layers = member_of(document, "layer_list", list, source=source)
    num_layers = member_of(document, "moe_layer_count", int, source=source)
    if len(layers) != num_layers:
        raise FormatError(
            f"Expected {num_layers} layers in {source}, as moe_layer_count says, got "
            f"{len(layers)}."
        )
    ranks = [_ranks_of(layer, f"{source}:layer_list[{row}]") for row, layer in enumerate(layers)]
    slots = numbers_of(ranks, source=f"{source}:device_expert", dimensions=(3,), is_whole=True)
    return PlacementTable(
        phy2log=slots.reshape(num_layers, -1), rows=Rows.MOE, num_ranks=int(slots.shape[1])
    )


def _ranks_of(layer: Any, source: str) -> list[Any]:
    devices = member_of(layer, "device_list", list, source=source)
    num_devices = member_of(layer, "device_count", int, source=source)
    if len(devices) != num_devices:
        raise FormatError(
            f"Expected {num_devices} devices in {source}, as device_count says, got "
            f"{len(devices)}."
        )
    return [
        member_of(device, "device_expert", list, source=f"{source}:device_list[{rank}]")
        for rank, device in enumerate(devices)
    ]


def _encode_map(placement: PlacementMap) -> bytes:
    ranks = placement.phy2log.reshape(placement.num_layers, placement.num_ranks or 1, -1).tolist()
    layers = [
        {
            "layer_id": row,
            "device_count": len(devices),
            "device_list": [
                {"device_id": rank, "device_expert": experts}
                for rank, experts in enumerate(devices)
            ],
        }
        for row, devices in enumerate(ranks)
    ]
    return dump_json({"moe_layer_count": len(layers), "layer_list": layers})


LOAD = LoadFormat(
    name="torch",
    description="A plain tensor [layers, experts], as in vLLM-Ascend's example",
    containers=(Container.TORCH,),
    is_it=lambda file: is_tensor(file.content),
    parse=_parse_tensor,
)
PLACEMENT = PlacementFormat(
    name="ascend",
    description="vLLM-Ascend's expert_map.json",
    container=Container.JSON,
    is_it=lambda document: type(document) is dict and "layer_list" in document,
    parse=_parse_map,
    encode=_encode_map,
    profile=ASCEND,
)
