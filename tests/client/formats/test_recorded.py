"""Recordings of real engines, and plans for them, through every format."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from expertplane_client.formats import (
    PlacementMap,
    engine_profile,
    parse_layer_ids,
    read_load,
    read_placement,
    write_load,
    write_placement,
)
from tests.support.fixtures import fixtures_dir


if TYPE_CHECKING:
    from pathlib import Path


MOE_LAYERS = parse_layer_ids("3-60")


@pytest.mark.parametrize(
    ("name", "num_tokens"),
    [("dsv3_decode_in2000out100", 23_760_000), ("dsv3_prefill_in1024", None)],
)
def test_a_recording_of_sglang_is_read(name: str, num_tokens: int | None) -> None:
    """61 hidden layers; the three dense ones are idle, the others all count the same tokens."""
    path = fixtures_dir() / "data" / f"{name}.json"
    every, moe = read_load(path), read_load(path, MOE_LAYERS)

    assert (every.num_layers, moe.num_layers, moe.num_rows) == (61, 58, 61)
    assert [note for note in every.notes if note.startswith("No token in layers 0-2;")]
    assert not moe.notes
    totals = set(moe.weight().sum(axis=1).tolist())
    assert len(totals) == 1
    assert num_tokens is None or totals == {num_tokens}


@pytest.mark.parametrize("name", ["lmdeploy", "trtllm", "npz"])
def test_a_recording_goes_from_engine_to_engine(tmp_path: Path, name: str) -> None:
    """What SGLang recorded can be planned for by the others, layer by layer."""
    moe = read_load(fixtures_dir() / "data" / "dsv3_decode_in2000out100.json", MOE_LAYERS)
    path = tmp_path / {"lmdeploy": "load.json", "npz": "load.npz"}.get(name, "load")
    write_load(path, moe, output_format=name)
    found = read_load(path, MOE_LAYERS)

    np.testing.assert_array_equal(moe.weight(), found.weight())
    assert found.layer_ids == MOE_LAYERS
    assert found.num_rows == (None if name == "trtllm" else 61)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_a_plan_of_deepseek_goes_to_the_engines(tmp_path: Path, engine: str) -> None:
    """The golden plan of 58 layers comes back from each engine's file as it was."""
    with np.load(fixtures_dir() / "golden" / "dsv3_global.npz") as golden:
        phy2log = golden["deepseek_phy2log"]
        num_logical_experts = int(golden["weight"].shape[1])
        num_ranks = int(golden["num_gpus"])
    layer_ids = MOE_LAYERS[: len(phy2log)]
    written = PlacementMap(
        phy2log=phy2log,
        num_logical_experts=num_logical_experts,
        num_ranks=num_ranks,
        layer_ids=layer_ids,
        num_rows=61,
    )
    profile = engine_profile(engine)
    profile.check(written)
    path = tmp_path / {"vllm": "plan.pt", "sglang": "plan.json", "trtllm": "plan.yaml"}[engine]
    write_placement(path, written, output_format=profile.output_format)
    found = read_placement(path, layer_ids=layer_ids, num_ranks=num_ranks)

    np.testing.assert_array_equal(phy2log, found.phy2log)
    assert found.num_logical_experts == num_logical_experts
