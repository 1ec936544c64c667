"""TensorRT-LLM's files, keyed by the model's layer numbers.

Recordings: a folder with `meta_info.json` and, for every rank, `rank{r}.safetensors` with a key
`{iteration}_{layer}` per tensor [experts] of the tokens that the rank routed. Ranks are summed,
iterations are the samples. `rank{r}_raw.safetensors` is another matter and left alone. Placements:
`moe_load_balancer.yaml`, static (`layer_updates_per_iter: 0`).

Source: TensorRT-LLM `tensorrt_llm/_torch/expert_statistic.py`, and `utils.py` and
`generate_eplb_config.py` of `examples/wide_ep/ep_load_balancer`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane_client.errors import FormatError

from .containers import Container
from .files import Folder, load_package, read_bytes
from .json_file import dump_json, member_of, numbers_of, read_json
from .numpy_file import MAX_ELEMENTS
from .profiles import TRTLLM
from .rows import Rows
from .tables import LoadFormat, LoadTable, PlacementFormat, PlacementTable


if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from .placement import PlacementMap
    from .recording import Recording


MAX_RANK_BYTES = 2**29
MAX_RANK_HEADER_BYTES = 2**24

_META = "meta_info.json"
_RANK_FILE = re.compile(r"rank(?P<rank>[0-9]{1,6})\.safetensors")
_KEY = re.compile(r"(?P<iteration>[0-9]{1,9})_(?P<layer>[0-9]{1,9})")
_ASSIGNMENTS = "initial_global_assignments"
_SETTINGS = {_ASSIGNMENTS, "num_slots", "layer_updates_per_iter"}


def _parse_folder(folder: Folder, source: str) -> LoadTable:
    meta = read_json(folder.path / _META)
    num_experts = member_of(meta, "num_experts", int, source=f"{source}/{_META}")
    names = [name for name in folder.names if _RANK_FILE.fullmatch(name)]
    ranks = sorted(int(name.removeprefix("rank").partition(".")[0]) for name in names)
    if ranks != list(range(len(ranks))) or not ranks:
        raise FormatError(
            f"Expected rank0.safetensors and on, of all ranks, in {source}, got ranks "
            f"{ranks[:16]}."
        )
    max_count = 2**62 // len(names)  # so that the sums over ranks do not wrap around
    total: dict[tuple[int, int], NDArray[Any]] = {}
    for name in names:
        for key, counts in _read_rank(folder.path / name, num_experts, max_count).items():
            total[key] = total[key] + counts if key in total else counts
        if len(total) * num_experts > MAX_ELEMENTS:
            raise FormatError(f"Expected {source} of at most {MAX_ELEMENTS} counts, got more.")
    iterations = sorted({iteration for iteration, _ in total})
    layers = sorted({layer for _, layer in total})
    if len(iterations) * len(layers) != len(total) or not total:
        raise FormatError(
            f"Expected every layer in every iteration of {source}, got {len(total)} counts of "
            f"{len(iterations)} iterations and {len(layers)} layers."
        )
    samples = np.stack(
        [np.stack([total[iteration, layer] for layer in layers]) for iteration in iterations]
    )
    return LoadTable(samples=samples, rows=Rows.KEYED, keys=tuple(layers))


def _read_rank(
    file: Path, num_experts: int, max_count: int
) -> dict[tuple[int, int], NDArray[Any]]:
    safetensors = load_package("safetensors.numpy", extra="formats")
    content = read_bytes(file, max_bytes=MAX_RANK_BYTES)
    num_header_bytes = int.from_bytes(content[:8], "little")
    if num_header_bytes > MAX_RANK_HEADER_BYTES:
        raise FormatError(
            f"Expected {file} with a header of at most {MAX_RANK_HEADER_BYTES} bytes, got "
            f"{num_header_bytes}."
        )
    try:
        tensors = safetensors.load(content)
    except Exception as error:
        # The parser raises its own kind, the conversion to numpy whatever a dtype runs into.
        raise FormatError(f"Expected {file} to be sound safetensors, got: {error!r}.") from error
    if len(tensors) * num_experts > MAX_ELEMENTS:  # before bytes become integers of 64 bits
        raise FormatError(
            f"Expected {file} of at most {MAX_ELEMENTS} counts, got {len(tensors)} tensors of "
            f"{num_experts}."
        )
    counts: dict[tuple[int, int], NDArray[Any]] = {}
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise FormatError(f"Expected keys ITERATION_LAYER in {file}, got {key[:40]!r}.")
        is_fit = tensor.dtype.kind in "iu" and tensor.shape == (num_experts,)
        if not is_fit:
            raise FormatError(
                f"Expected {file}:{key} to hold {num_experts} token counts, got "
                f"{tensor.dtype.name} {list(tensor.shape)}."
            )
        if tensor.size and not 0 <= tensor.min() <= tensor.max() < max_count:
            raise FormatError(
                f"Expected {file}:{key} to hold token counts in [0, {max_count}), got "
                f"{tensor.min()} to {tensor.max()}."
            )
        counts[int(match["iteration"]), int(match["layer"])] = tensor.astype(np.int64)
    return counts


def _is_folder(folder: Folder) -> bool:
    return _META in folder.names or any(_RANK_FILE.fullmatch(name) for name in folder.names)


def encode_for(recording: Recording, num_experts_per_token: int | None) -> Mapping[str, bytes]:
    """Returns one rank's file with all the load, and what is said about it.

    Args:
        recording: What to write.
        num_experts_per_token: Experts that a token goes to. None leaves it out, which the reader
            here accepts; `generate_eplb_config.py` does not plan without it.

    Raises:
        FormatError: counts that are not whole, or safetensors is not installed.
    """
    safetensors = load_package("safetensors.numpy", extra="formats")
    samples = recording.whole_samples()
    tensors = {
        f"{iteration}_{layer}": np.array(counts)
        for iteration, rows in enumerate(samples)
        for layer, counts in zip(recording.layer_ids, rows, strict=True)
    }
    meta = {"num_experts": recording.num_logical_experts}
    if num_experts_per_token is not None:
        meta["num_experts_per_token"] = num_experts_per_token
    return {_META: dump_json(meta), "rank0.safetensors": safetensors.save(tensors)}


def _parse_yaml(document: Any, source: str) -> PlacementTable:
    assignments = member_of(document, _ASSIGNMENTS, dict, source=source)
    num_slots = member_of(document, "num_slots", int, source=source)
    foreign = [str(key)[:40] for key in document if key not in _SETTINGS]
    if foreign:
        raise FormatError(
            f"Expected {source} to have the keys {sorted(_SETTINGS)} and no others, got {foreign}."
        )
    if "layer_updates_per_iter" in document:
        member_of(document, "layer_updates_per_iter", int, source=source)
    if not assignments or not all(type(key) is int for key in assignments):
        raise FormatError(
            f"Expected {_ASSIGNMENTS!r} of {source} to be keyed by layer numbers, got "
            f"{[str(key)[:40] for key in list(assignments)[:8]]}."
        )
    layers = sorted(assignments)
    for layer in layers:
        row = member_of(assignments, layer, list, source=f"{source}:{_ASSIGNMENTS}")
        if len(row) != num_slots:
            raise FormatError(
                f"Expected {num_slots} slots in layer {layer} of {source}, as num_slots says, got "
                f"{len(row)}."
            )
    phy2log = numbers_of(
        [assignments[layer] for layer in layers], source=source, dimensions=(2,), is_whole=True
    )
    return PlacementTable(phy2log=phy2log, rows=Rows.KEYED, keys=tuple(layers))


def _encode_yaml(placement: PlacementMap) -> bytes:
    lines = [f"{_ASSIGNMENTS}:"]
    lines += [
        f"  {layer}: {row}"
        for layer, row in zip(placement.layer_ids, placement.phy2log.tolist(), strict=True)
    ]
    lines += [f"num_slots: {placement.num_slots}", "layer_updates_per_iter: 0"]
    return "\n".join(lines).encode() + b"\n"


LOAD = LoadFormat(
    name="trtllm",
    description="TensorRT-LLM's folder of expert statistics",
    containers=(Container.FOLDER,),
    is_it=_is_folder,
    parse=_parse_folder,
    encode=lambda recording: encode_for(recording, None),
)
PLACEMENT = PlacementFormat(
    name="trtllm",
    description="TensorRT-LLM's moe_load_balancer.yaml",
    container=Container.YAML,
    is_it=lambda document: True,
    parse=_parse_yaml,
    encode=_encode_yaml,
    profile=TRTLLM,
)
