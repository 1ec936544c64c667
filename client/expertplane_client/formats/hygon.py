"""The expert map of HYGON's vLLM (das), version 2: a map per model, a row per MoE layer.

The engine looks a model up by its class, and wants the class once more in the entry. The legacy
form, one flat object, is read and no longer written.

Source: vllm_hcu `model_executor/layers/fused_moe/static_eplb.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from expertplane_client.errors import FormatError

from .containers import Container
from .json_file import brief, dump_json, keys_of, member_of, numbers_of
from .profiles import VLLM
from .rows import Rows
from .tables import PlacementFormat, PlacementTable


if TYPE_CHECKING:
    from .placement import PlacementMap
    from .tables import Model


_FORMAT = "vllm_offline_eplb_physical_to_logical_by_model"
_VERSION = 2
_MAPS = "model_maps"
_MAP = "physical_to_logical_map"
_LEGACY_MAPS = (_MAP, "expert_map")


def encode_for(placement: PlacementMap, model: Model | None) -> bytes:
    """Returns the file of one model.

    Args:
        placement: Where its experts are.
        model: Its names.

    Raises:
        FormatError: there are none: no class can be guessed that the engine would look up.
    """
    if model is None or not model.class_name:
        raise FormatError(
            "Expected the model's class for the format hygon, such as --model-class "
            "DeepseekV3ForCausalLM, got none."
        )
    entry = {
        "record_kind": "proposal",
        "model_name": model.class_name if model.name is None else model.name,
        "model_class": model.class_name,
        "num_moe_layers": placement.num_layers,
        "num_logical_experts": placement.num_logical_experts,
        "num_physical_experts": placement.num_slots,
        "num_redundant_experts": placement.num_slots - placement.num_logical_experts,
        _MAP: placement.phy2log.tolist(),
    }
    return dump_json({"version": _VERSION, "format": _FORMAT, _MAPS: {model.class_name: entry}})


def parse_for(document: Any, source: str, model_class: str | None) -> PlacementTable:
    """Returns the placement of one model.

    Args:
        document: The file's content.
        source: Where it comes from, for messages.
        model_class: The model's key; None takes the only one.

    Raises:
        FormatError: not such a file, or no such model.
    """
    if type(document) is dict and _MAPS not in document:
        return _parse_legacy(document, source)
    maps = member_of(document, _MAPS, dict, source=source)
    version = member_of(document, "version", int, source=source)
    if version != _VERSION or document.get("format") != _FORMAT:
        raise FormatError(
            f"Expected {source} of format {_FORMAT!r}, version {_VERSION}, got "
            f"{brief(document.get('format'))}, version {version}."
        )
    if model_class is None and len(maps) != 1:
        raise FormatError(
            f"Expected {source} to hold one model, or to be told which, got {keys_of(maps)}."
        )
    key = next(iter(maps)) if model_class is None else model_class
    entry = member_of(maps, key, dict, source=f"{source}:{_MAPS}")
    entry_source = f"{source}:{str(key)[:80]}"
    table = _table_of(entry, _MAP, entry_source)
    num_experts = member_of(entry, "num_logical_experts", int, source=entry_source)
    declared = {
        "num_moe_layers": table.phy2log.shape[0],
        "num_physical_experts": table.phy2log.shape[1],
        "num_redundant_experts": table.phy2log.shape[1] - num_experts,
    }
    for name, count in declared.items():
        found = member_of(entry, name, int, source=entry_source)
        if found != count:
            raise FormatError(f"Expected {name!r} of {entry_source} to be {count}, got {found}.")
    return PlacementTable(phy2log=table.phy2log, rows=Rows.MOE, num_logical_experts=num_experts)


def _parse_legacy(document: dict[str, Any], source: str) -> PlacementTable:
    keys = [key for key in _LEGACY_MAPS if key in document]
    if len(keys) != 1:
        raise FormatError(
            f"Expected {source} to hold {_MAPS!r}, or one of {_LEGACY_MAPS}, got "
            f"{keys_of(document)}."
        )
    return _table_of(document, keys[0], source)


def _table_of(entry: dict[str, Any], key: str, source: str) -> PlacementTable:
    rows = member_of(entry, key, list, source=source)
    phy2log = numbers_of(rows, source=f"{source}:{key}", dimensions=(2,), is_whole=True)
    return PlacementTable(phy2log=phy2log, rows=Rows.MOE)


def _is_it(document: Any) -> bool:
    # A flat object with the map alone is SGLang's as well, and taken for that.
    keys = document if type(document) is dict else ()
    return _MAPS in keys or "expert_map" in keys or (_MAP in keys and "model_class" in keys)


PLACEMENT = PlacementFormat(
    name="hygon",
    description="Expert map of HYGON's vLLM, version 2",
    container=Container.JSON,
    is_it=_is_it,
    parse=lambda document, source: parse_for(document, source, None),
    encode=lambda placement: encode_for(placement, None),
    profile=VLLM,
)
