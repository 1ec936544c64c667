"""Files for the tests of formats, written as engines write them."""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.numpy import save_file

from expertplane_client.formats import Model, PlacementMap


if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


WEIGHT = np.array([[0, 0, 0], [4, 3, 2], [1, 1, 8]], dtype=np.int32)
"""Three hidden layers, the first of them dense."""

PHY2LOG = [[0, 1, 2, 3, 0, 1], [0, 2, 0, 1, 0, 3]]
"""vLLM's own example of a placement: 2 layers, 4 experts, 6 slots."""

PHY2LOG_APART = [[7, 2, 0, 3, 5, 6, 1, 4, 7, 2]]
"""vLLM-Ascend's own example: 8 experts, 2 ranks of 5 slots, no expert twice on a rank."""


def placement(**changes: Any) -> PlacementMap:
    """Returns vLLM's example as layers 3 and 4 of a model of 6 hidden layers, on 3 ranks."""
    fields = {
        "phy2log": np.array(PHY2LOG),
        "num_logical_experts": 4,
        "num_ranks": 3,
        "layer_ids": (3, 4),
        "num_rows": 6,
    }
    return PlacementMap(**{**fields, **changes})


def model_of(name: str) -> Model | None:
    """Returns a model's names for the one format of placements that wants them."""
    return Model(class_name="DeepseekV3ForCausalLM") if name == "hygon" else None


def save(folder: Path, **arrays: Any) -> Path:
    """Writes an archive as numpy does."""
    path = folder / "load.npz"
    np.savez(path, **arrays)
    return path


def save_json(folder: Path, document: Any, name: str = "load.json") -> Path:
    """Writes a document."""
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def save_pt(folder: Path, content: Any, name: str = "load.pt") -> Path:
    """Writes what torch writes."""
    path = folder / name
    torch.save(content, path)
    return path


def save_statistic(folder: Path, ranks: Mapping[str, Mapping[str, Any]], meta: Any = None) -> Path:
    """Writes a folder as TensorRT-LLM does."""
    path = folder / "expert_statistic"
    path.mkdir()
    default = {"num_experts": 3, "num_experts_per_token": 2}
    (path / "meta_info.json").write_text(json.dumps(default if meta is None else meta))
    for name, tensors in ranks.items():
        arrays = {key: np.array(counts) for key, counts in tensors.items()}
        save_file(arrays, path / name)
    return path


def npy(header: str, content: bytes = b"") -> bytes:
    """Returns a .npy file with a header of the test's own."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


def save_raw(folder: Path, content: bytes, name: str = "weight.npy") -> Path:
    """Writes an archive with one member of any content."""
    path = folder / "load.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, content)
    return path


def repack_pt(
    path: Path, changed: Mapping[str, bytes], *, compression: int = zipfile.ZIP_STORED
) -> None:
    """Replaces members of a .pt file, with sound checksums."""
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    folder = next(iter(members)).partition("/")[0]
    members |= {f"{folder}/{name}": content for name, content in changed.items()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def pickle_of(path: Path) -> bytes:
    """Returns the program of a .pt file."""
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        return archive.read(name)
