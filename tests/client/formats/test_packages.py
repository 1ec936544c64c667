"""What is not installed is only missed by the formats that need it, and they say how to get it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch

from expertplane_client.formats import (
    FormatError,
    read_load,
    read_placement,
    write_load,
    write_placement,
)

from .files import WEIGHT, placement, save, save_json, save_pt, save_statistic


if TYPE_CHECKING:
    from pathlib import Path


FORMATS = r"pip install 'expertplane\[formats\]'"
PLANNER = r"pip install 'expertplane\[planner\]'"


def test_torch_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's files need torch, in and out; nothing is written without it."""
    path = save_pt(tmp_path, torch.tensor(WEIGHT))
    monkeypatch.setitem(sys.modules, "torch", None)

    for read in (read_load, read_placement):
        with pytest.raises(FormatError, match=f"package torch .*{PLANNER}"):
            read(path)
    with pytest.raises(FormatError, match=PLANNER):
        write_placement(tmp_path / "plan.pt", placement())
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_safetensors_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT-LLM's statistics need safetensors, in and out."""
    path = save_statistic(tmp_path, {"rank0.safetensors": {"0_3": [1, 2, 3]}})
    recording = read_load(path)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)

    with pytest.raises(FormatError, match=f"package safetensors .*{FORMATS}"):
        read_load(path)
    with pytest.raises(FormatError, match=FORMATS):
        write_load(tmp_path / "other", recording, output_format="trtllm")
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_yaml_is_asked_for_by_the_reader_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A balancer's file is so plain that writing it needs no package."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    path = tmp_path / "plan.yaml"
    write_placement(path, placement())

    with pytest.raises(FormatError, match=f"package yaml .*{FORMATS}"):
        read_placement(path)


def test_numpy_is_enough_for_the_rest(tmp_path: Path) -> None:
    """Importing the formats, and reading JSON and .npz, touches no other package."""
    save(tmp_path, weight=WEIGHT)
    save_json(tmp_path, {"logical_count": WEIGHT.tolist()})
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from expertplane_client.formats import read_load\n"
        "for name in ('load.npz', 'load.json'):\n"
        "    read_load(Path(sys.argv[1]) / name)\n"
        "print([name for name in ('torch', 'safetensors', 'yaml') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
