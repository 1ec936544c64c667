"""Files of every format, cut and changed anywhere: read for what they are or refused, no third."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings, strategies as st

from expertplane_client.formats import (
    FormatError,
    PlacementMap,
    Recording,
    read_load,
    read_placement,
    write_load,
    write_placement,
)

from .files import PHY2LOG_APART, WEIGHT, model_of, placement, save_json, save_pt
from .test_per_pass import save_rank


if TYPE_CHECKING:
    from collections.abc import Callable


LOAD = Recording(
    samples=np.stack([WEIGHT, 2 * WEIGHT]).astype(np.int64), layer_ids=(1, 2, 3), source="test"
)
APART = placement(
    phy2log=np.array(PHY2LOG_APART), num_logical_experts=8, num_ranks=2, layer_ids=(3,)
)


SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _save_load(folder: Path, name: str) -> Path:
    """Writes a recording in any format and returns the path to read."""
    suffix = {"npz": ".npz", "trtllm": ""}.get(name, ".json")
    path = folder / f"load{suffix}"
    if name == "sglang-pt":
        return save_pt(folder, {"rank": 0, "logical_count": torch.tensor(LOAD.samples)})
    if name == "sglang-per-pass":
        return save_rank(folder, 0, {0: [[0, 0, 0], [1, 2, 3]], 1: [[0, 0, 0], [1, 2, 3]]})
    if name == "torch":
        return save_pt(folder, torch.tensor(WEIGHT))
    if name == "fastdeploy":
        return save_json(folder, {"code": 0, "data": [WEIGHT.tolist()]})
    if name == "rtp-llm":
        return save_json(folder, '{"log_stats": [[1, 2]]}\n{"log_stats": [[3, 4]]}\n')
    write_load(path, LOAD, output_format=name)
    return path


LOAD_NAMES = [
    "npz",
    "sglang-json",
    "sglang-pt",
    "sglang-per-pass",
    "vllm-json",
    "trtllm",
    "torch",
    "lmdeploy",
    "fastdeploy",
    "rtp-llm",
]
SUFFIXES = {"vllm": ".pt", "trtllm": ".yaml", "npz": ".npz", "omni": ".npy"}
PLACEMENT_NAMES = ["npz", "json", "sglang", "vllm", "hygon", "trtllm", "ascend", "omni"]


def damage(data: st.DataObject, content: bytes) -> bytes:
    """Returns bytes that were changed in up to 4 places and perhaps cut off."""
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(0, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    return bytes(changed[: data.draw(st.integers(0, len(changed)) | st.just(len(changed)))])


def read_or_none(read: Callable[[], Recording | PlacementMap]) -> Recording | PlacementMap | None:
    """Returns what is read, None for a refusal; anything else that is raised fails the test."""
    try:
        return read()
    except FormatError:
        return None


@pytest.mark.parametrize("name", LOAD_NAMES)
@settings(SLOW, max_examples=60)
@given(data=st.data())
def test_a_damaged_recording_is_counts_or_refused(name: str, data: st.DataObject) -> None:
    """Whatever happened to the file on its way."""
    with tempfile.TemporaryDirectory() as folder:
        path = _save_load(Path(folder), name)
        files = [path] if path.is_file() else sorted(path.iterdir())
        victim = data.draw(st.sampled_from(files))
        victim.write_bytes(damage(data, victim.read_bytes()))
        chosen = data.draw(st.sampled_from([name, None]))
        found = read_or_none(lambda: read_load(path, input_format=chosen))

    assert found is None or (isinstance(found, Recording) and bool((found.samples >= 0).all()))


@pytest.mark.parametrize("name", PLACEMENT_NAMES)
@settings(SLOW, max_examples=60)
@given(data=st.data())
def test_a_damaged_placement_is_one_or_refused(name: str, data: st.DataObject) -> None:
    """What is read still has a slot for every expert."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"plan{SUFFIXES.get(name, '.json')}"
        write_placement(path, APART, output_format=name, model=model_of(name))
        path.write_bytes(damage(data, path.read_bytes()))
        chosen = data.draw(st.sampled_from([name, None]))
        found = read_or_none(lambda: read_placement(path, input_format=chosen))

    assert found is None or (isinstance(found, PlacementMap) and int(found.logcnt().min()) >= 1)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
KEYS = st.sampled_from(
    [
        "logical_count",
        "load_history",
        "logical_expert_load",
        "code",
        "data",
        "log_stats",
        "phy2log",
    ]
    + ["physical_to_logical_map", "model_maps", "expert_map", "model_class", "layer_list"]
    + ["moe_layer_count", "device_count", "device_list", "device_expert", "format", "version"]
    + ["initial_global_assignments", "num_slots", "layer_ids", "num_logical_experts", "records"]
    + ["last_physical_to_logical_map", "forward_pass_id", "rank", "global_physical_count"]
)
DOCUMENTS = st.recursive(
    LEAVES,
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(KEYS, parts, max_size=4),
    max_leaves=12,
)


@settings(SLOW, max_examples=300)
@given(document=DOCUMENTS | st.dictionaries(KEYS, DOCUMENTS, max_size=4))
def test_any_document_is_read_or_refused(document: Any) -> None:
    """Wrong keys and wrong types under the right keys, as JSON for every reader of JSON."""
    with tempfile.TemporaryDirectory() as folder:
        path = save_json(Path(folder), document)
        for name in (None, "sglang-json", "vllm-json", "lmdeploy", "fastdeploy", "rtp-llm"):
            read_or_none(lambda name=name: read_load(path, input_format=name))  # type: ignore[misc]
        for name in (None, "json", "sglang", "hygon", "ascend"):
            read_or_none(lambda name=name: read_placement(path, input_format=name))  # type: ignore[misc]


@settings(SLOW, max_examples=150)
@given(document=DOCUMENTS | st.dictionaries(KEYS, DOCUMENTS, max_size=4))
def test_any_yaml_is_read_or_refused(document: Any) -> None:
    """The same as YAML."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.yaml"
        path.write_text(yaml.safe_dump(document))
        read_or_none(lambda: read_placement(path))


TENSORS = st.sampled_from(
    [
        torch.ones(2, 3),
        torch.ones(2, 3, dtype=torch.int32),
        torch.ones(2, 2, 3, dtype=torch.int64),
        torch.full((2, 3), torch.nan),
        torch.full((2, 3), -1),
        torch.ones(2, 3, dtype=torch.bool),
        torch.ones(2, 3, dtype=torch.complex64),
        torch.ones(2, 3, requires_grad=True),
        torch.ones(0, 3),
        torch.tensor(4),
        torch.zeros(2, 3).to_sparse(),
    ]
)
OBJECTS = st.recursive(
    LEAVES | TENSORS,
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(KEYS, parts, max_size=4),
    max_leaves=8,
)


@settings(SLOW, max_examples=200)
@given(content=OBJECTS | st.dictionaries(KEYS, OBJECTS | TENSORS, max_size=4))
def test_any_torch_file_is_read_or_refused(content: Any) -> None:
    """The same as torch writes it, with tensors of every kind."""
    with tempfile.TemporaryDirectory() as folder:
        path = save_pt(Path(folder), content)
        for name in (None, "sglang-pt", "sglang-per-pass", "torch"):
            read_or_none(lambda name=name: read_load(path, input_format=name))  # type: ignore[misc]
        read_or_none(lambda: read_placement(path))
