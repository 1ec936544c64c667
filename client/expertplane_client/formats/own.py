"""Expertplane's own files.

Recordings are `.npz` with either `weight` [layers, experts] or `samples` [samples, layers,
experts]. As many layer ids as rows name the layers; of fewer the row index is the model's layer
number; without any, the file does not say which layers they are.
Plans are `.npz` with `phy2log`, `log2phy` and `logcnt`, whose rows are the layers that were
planned; the JSON of a placement says which they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane_client.errors import FormatError

from .containers import Container
from .files import write_bytes
from .json_file import brief, dump_json, member_of, numbers_of
from .numpy_file import array_of, npz_bytes
from .rows import Rows
from .tables import LoadFormat, LoadTable, PlacementFormat, PlacementTable


if TYPE_CHECKING:
    import os
    import zipfile

    from numpy.typing import NDArray

    from .placement import PlacementMap
    from .recording import Recording


_JSON_FORMAT = "expertplane.placement"
_JSON_VERSION = 1


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
    write_bytes(Path(path), _plan_bytes(phy2log, log2phy, logcnt))


def _plan_bytes(*maps: NDArray[np.integer[Any]]) -> bytes:
    names = ("phy2log", "log2phy", "logcnt")
    # What torch takes as an index, whatever the maps were kept in.
    return npz_bytes(
        {name: array.astype(np.int64) for name, array in zip(names, maps, strict=True)}
    )


def _parse_load(archive: zipfile.ZipFile, source: str) -> LoadTable:
    samples = array_of(archive, ("weight", "samples"), source=source)
    return LoadTable(samples=samples, rows=Rows.EITHER)


def _encode_load(recording: Recording) -> bytes:
    return npz_bytes({"samples": recording.all_rows()})


def _parse_npz(archive: zipfile.ZipFile, source: str) -> PlacementTable:
    phy2log = array_of(archive, ("phy2log",), source=source)
    logcnt = array_of(archive, ("logcnt",), source=source)
    if phy2log.ndim != 2 or logcnt.ndim != 2 or len(phy2log) != len(logcnt):
        raise FormatError(
            f"Expected phy2log [layers, slots] and logcnt [layers, experts] in {source}, got "
            f"{list(phy2log.shape)} and {list(logcnt.shape)}."
        )
    return PlacementTable(
        phy2log=phy2log, rows=Rows.EITHER, num_logical_experts=int(logcnt.shape[1])
    )


def _parse_json(document: Any, source: str) -> PlacementTable:
    version = member_of(document, "version", int, source=source)
    if document.get("format") != _JSON_FORMAT or version != _JSON_VERSION:
        raise FormatError(
            f"Expected {source} of format {_JSON_FORMAT!r} version {_JSON_VERSION}, got "
            f"{brief(document.get('format'))} version {version}."
        )
    keys = numbers_of(
        member_of(document, "layer_ids", list, source=source),
        source=f"{source}:layer_ids",
        dimensions=(1,),
        is_whole=True,
    )
    phy2log = numbers_of(
        member_of(document, "phy2log", list, source=source),
        source=f"{source}:phy2log",
        dimensions=(2,),
        is_whole=True,
    )
    if len(keys) != len(phy2log):
        raise FormatError(
            f"Expected a layer id for each of {len(phy2log)} rows of {source}, got {len(keys)}."
        )
    return PlacementTable(
        phy2log=phy2log,
        rows=Rows.KEYED,
        keys=tuple(keys.tolist()),
        num_logical_experts=member_of(document, "num_logical_experts", int, source=source),
        num_ranks=_count_or_none(document, "num_ranks", source),
        num_rows=_count_or_none(document, "num_rows", source),
    )


def _count_or_none(document: dict[str, Any], key: str, source: str) -> int | None:
    if document.get(key) is None:
        return None
    count: int = member_of(document, key, int, source=source)
    return count


def _encode_npz(placement: PlacementMap) -> bytes:
    return _plan_bytes(placement.phy2log, placement.log2phy(), placement.logcnt())


def _encode_json(placement: PlacementMap) -> bytes:
    return dump_json(
        {
            "format": _JSON_FORMAT,
            "version": _JSON_VERSION,
            "num_logical_experts": placement.num_logical_experts,
            "num_ranks": placement.num_ranks,
            "num_rows": placement.num_rows,
            "layer_ids": list(placement.layer_ids),
            "phy2log": placement.phy2log.tolist(),
        }
    )


LOAD = LoadFormat(
    name="npz",
    description="Expertplane's recording: weight or samples",
    containers=(Container.NPZ,),
    is_it=lambda archive: True,
    parse=_parse_load,
    encode=_encode_load,
)
PLACEMENT_NPZ = PlacementFormat(
    name="npz",
    description="Expertplane's plan: phy2log, log2phy, logcnt",
    container=Container.NPZ,
    is_it=lambda archive: True,
    parse=_parse_npz,
    encode=_encode_npz,
)
PLACEMENT_JSON = PlacementFormat(
    name="json",
    description="Expertplane's placement with layer ids and ranks",
    container=Container.JSON,
    is_it=lambda document: type(document) is dict and "phy2log" in document,
    parse=_parse_json,
    encode=_encode_json,
)
