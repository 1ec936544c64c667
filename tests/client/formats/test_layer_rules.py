"""A plan is not made for a file whose layers nobody knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from expertplane_client.formats import (
    FormatError,
    Recording,
    check_layers,
    check_placement_path,
    read_load,
)

from .files import WEIGHT, save, save_json, save_pt, save_statistic


if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


SUFFIXES = {"vllm": ".pt", "trtllm": ".yaml", "omni": ".npy", "npz": ".npz"}
MOE_ROWS = WEIGHT[1:].tolist()


def hidden(folder: Path) -> Path:
    """Writes a row per hidden layer, the first dense."""
    return save_json(folder, {"logical_count": WEIGHT.tolist()})


def moe(folder: Path) -> Path:
    """Writes a row per MoE layer."""
    return save_json(folder, {"load_history": [{"logical_expert_load": MOE_ROWS}]})


def idle_moe(folder: Path) -> Path:
    """Writes a row per MoE layer, the first of them idle."""
    return save_json(folder, {"load_history": [{"logical_expert_load": WEIGHT.tolist()}]})


def either(folder: Path) -> Path:
    """Writes rows of either kind, the first of them idle."""
    return save(folder, weight=WEIGHT)


def tensor(folder: Path) -> Path:
    """Writes rows of either kind, all with load."""
    return save_pt(folder, torch.tensor(MOE_ROWS))


def keyed(folder: Path) -> Path:
    """Writes layers 3 and 4 by their numbers."""
    return save_statistic(folder, {"rank0.safetensors": {"0_3": [1, 2, 3], "0_4": [4, 5, 6]}})


def check(recording: Recording, name: str, **more: Any) -> None:
    """Checks the layers for a format of placements."""
    check_layers(recording, path=f"plan{SUFFIXES.get(name, '.json')}", output_format=name, **more)


@pytest.mark.parametrize("name", ["sglang", "trtllm"])
@pytest.mark.parametrize("write", [moe, either, tensor])
def test_unknown_layers_are_asked_for(
    tmp_path: Path, write: Callable[[Path], Path], name: str
) -> None:
    """Rows counted from 0 would be taken for the first layers of the model."""
    recording = read_load(write(tmp_path))
    example = "3-5" if write is either else "3-4"

    with pytest.raises(
        FormatError, match=f"Expected --layer-ids for .*such as --layer-ids {example}"
    ):
        check(recording, name)


@pytest.mark.parametrize("name", ["vllm", "hygon", "ascend", "omni"])
@pytest.mark.parametrize("write", [hidden, either])
def test_idle_rows_are_no_moe_layers(
    tmp_path: Path, write: Callable[[Path], Path], name: str
) -> None:
    """With them the file would have more layers than the engine; whoever names them may."""
    path = write(tmp_path)

    with pytest.raises(FormatError, match="no token in layers 0, .*such as --layer-ids 1-2"):
        check(read_load(path), name)
    check(read_load(path, (1, 2)), name)
    check(read_load(path, (0, 1, 2)), name)


@pytest.mark.parametrize("name", ["vllm", "hygon", "ascend", "omni"])
@pytest.mark.parametrize("write", [moe, idle_moe, tensor, keyed])
def test_a_row_per_moe_layer_needs_no_names(
    tmp_path: Path, write: Callable[[Path], Path], name: str
) -> None:
    """What goes in by the row comes out by the row; an idle MoE layer is one all the same."""
    check(read_load(write(tmp_path)), name)


def test_hidden_layers_are_asked_for(tmp_path: Path) -> None:
    """SGLang wants a row for the layers after the last MoE layer too."""
    for recording in (read_load(moe(tmp_path), (3, 4)), read_load(keyed(tmp_path))):
        with pytest.raises(FormatError, match="Expected --hidden-layers for .*--hidden-layers 5"):
            check(recording, "sglang")
        check(recording, "sglang", num_hidden_layers=5)
        check(recording, "trtllm")
        with pytest.raises(FormatError, match="Expected --hidden-layers above 4, .*got 4"):
            check(recording, "sglang", num_hidden_layers=4)


@pytest.mark.parametrize("name", ["sglang", "trtllm"])
def test_a_file_that_says_is_believed(tmp_path: Path, name: str) -> None:
    """A row per hidden layer is its own number, and their count is the model's."""
    for layer_ids in (None, (1, 2)):
        recording = read_load(hidden(tmp_path), layer_ids)
        check(recording, name)
        assert recording.num_rows == 3


@pytest.mark.parametrize("write", [hidden, moe, either, tensor, keyed])
def test_own_formats_take_everything(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    """They keep the layer ids as they are; and nobody asks where nothing is written."""
    recording = read_load(write(tmp_path))

    for name in ("npz", "json"):
        check(recording, name)
    check_layers(recording)


def test_an_engine_is_asked_whatever_is_written(tmp_path: Path) -> None:
    """Its rules hold for a plan in our own format, and for one that is only looked at."""
    recording = read_load(moe(tmp_path))

    for more in ({}, {"path": "plan.npz"}):
        with pytest.raises(FormatError, match="--layer-ids for SGLang"):
            check_layers(recording, engine="sglang", **more)  # type: ignore[arg-type]


def test_all_rows_may_be_idle(tmp_path: Path) -> None:
    """There is no better list to propose then."""
    recording = read_load(save(tmp_path, weight=np.zeros((2, 3))))

    with pytest.raises(FormatError, match="such as --layer-ids 0-1"):
        check(recording, "vllm")


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("hygon", {}, "Expected --model-class with the format hygon, .*got none"),
        ("hygon", {"model_class": ""}, "got none"),
        ("sglang", {"model_class": "A"}, "only with the format hygon, got 'A' with sglang"),
        ("vllm", {"num_hidden_layers": 61}, "formats sglang and json, got 61 with vllm"),
        ("trtllm", {"num_hidden_layers": 61}, "got 61 with trtllm"),
    ],
)
def test_settings_fit_the_format(name: str, more: Any, message: str) -> None:
    """One that is missing is asked for, one that would do nothing is refused."""
    path = f"plan{SUFFIXES.get(name, '.json')}"

    with pytest.raises(FormatError, match=message):
        check_placement_path(path, output_format=name, **more)
    check_placement_path("plan.json", output_format="hygon", model_class="A")
    check_placement_path("plan.json", output_format="json", num_hidden_layers=61)
