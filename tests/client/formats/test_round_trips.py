"""What is written is read back, whatever it is."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from expertplane_client.formats import (
    LOAD_OUTPUT_FORMATS,
    FormatError,
    PlacementMap,
    Recording,
    read_load,
    read_placement,
    write_load,
    write_placement,
)

from .files import WEIGHT, model_of


SAMPLES = WEIGHT[np.newaxis].astype(np.int64)

PLACEMENTS = {
    "npz": ".npz",
    "json": ".json",
    "sglang": ".json",
    "vllm": ".pt",
    "hygon": ".json",
    "trtllm": ".yml",
    "ascend": ".json",
    "omni": ".npy",
}

SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def layers(draw: st.DrawFn) -> tuple[tuple[int, ...], int]:
    """Draws layer ids and the number of hidden layers."""
    ids = sorted(draw(st.sets(st.integers(0, 70), min_size=1, max_size=4)))
    return tuple(ids), ids[-1] + draw(st.integers(1, 3))


@st.composite
def placements(draw: st.DrawFn, *, is_apart: bool) -> PlacementMap:
    """Draws placements; with `is_apart` a rank holds every expert once at most, in order."""
    layer_ids, num_rows = draw(layers())
    num_ranks = draw(st.integers(1, 4))
    num_local = draw(st.integers(1, 4))
    num_experts = draw(st.integers(num_local, num_ranks * num_local))
    rows = []
    for _ in layer_ids:
        start = np.arange(num_ranks * num_local) % num_experts
        if is_apart:
            ranks = start.reshape(num_ranks, num_local)[draw(st.permutations(range(num_ranks)))]
            rows.append(np.sort(ranks, axis=1).ravel())
        else:
            rows.append(np.array(draw(st.permutations(start.tolist()))))
    return PlacementMap(
        phy2log=np.stack(rows),
        num_logical_experts=num_experts,
        num_ranks=num_ranks,
        layer_ids=layer_ids,
        num_rows=num_rows,
    )


@pytest.mark.parametrize("name", sorted(PLACEMENTS))
@settings(SLOW, max_examples=40)
@given(data=st.data())
def test_a_placement_comes_back(name: str, data: st.DataObject) -> None:
    """With its layers, once these are told where the format does not know them."""
    written = data.draw(placements(is_apart=name in ("ascend", "omni")))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"plan{PLACEMENTS[name]}"
        write_placement(path, written, output_format=name, model=model_of(name))
        assert [entry.name for entry in Path(folder).iterdir()] == [path.name]
        found = read_placement(
            path,
            num_logical_experts=written.num_logical_experts,
            num_ranks=written.num_ranks,
            layer_ids=written.layer_ids,
            input_format=None if name != "hygon" else name,
        )

    np.testing.assert_array_equal(written.phy2log, found.phy2log)
    assert found.layer_ids == written.layer_ids
    assert found.num_ranks == written.num_ranks
    assert found.num_rows == (written.num_rows if name in ("sglang", "json") else found.num_rows)


@st.composite
def recordings(draw: st.DrawFn) -> Recording:
    """Draws recordings of whole counts with at least one token in every sample."""
    layer_ids, num_rows = draw(layers())
    shape = (draw(st.integers(1, 3)), len(layer_ids), draw(st.integers(1, 5)))
    num_counts = shape[0] * shape[1] * shape[2]
    counts = draw(st.lists(st.integers(0, 2**40), min_size=num_counts, max_size=num_counts))
    return Recording(
        samples=np.array(counts).reshape(shape),
        layer_ids=layer_ids,
        num_rows=num_rows,
        source="test",
    )


@pytest.mark.parametrize("name", LOAD_OUTPUT_FORMATS)
@settings(SLOW, max_examples=40)
@given(written=recordings())
def test_a_recording_comes_back(name: str, written: Recording) -> None:
    """Sample by sample, or summed where the format has no samples."""
    suffix = {"npz": ".npz", "trtllm": ""}.get(name, ".json")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"load{suffix}"
        write_load(path, written, output_format=name)
        assert [entry.name for entry in Path(folder).iterdir()] == [path.name]
        found = read_load(path, written.layer_ids)

    expected = written.samples.sum(axis=0)[None] if name == "lmdeploy" else written.samples
    np.testing.assert_array_equal(expected, found.samples)
    assert found.layer_ids == written.layer_ids
    if name in ("sglang-json", "lmdeploy"):
        assert found.num_rows == written.num_rows


def test_lmdeploy_gets_a_row_per_hidden_layer(tmp_path: Path) -> None:
    """61 rows for 58 MoE layers: the dense ones are zeros, as if lmdeploy had recorded it."""
    samples = np.ones((2, 58, 4), dtype=np.int64)
    written = Recording(samples=samples, layer_ids=tuple(range(3, 61)), source="test")
    write_load(tmp_path / "load.json", written, output_format="lmdeploy")

    rows = json.loads((tmp_path / "load.json").read_text())
    assert rows == [[0] * 4] * 3 + [[2] * 4] * 58


def test_a_history_of_vllm_gets_the_moe_layers_alone(tmp_path: Path) -> None:
    """Entry by entry."""
    written = Recording(samples=SAMPLES[:, 1:], layer_ids=(1, 2), source="test")
    write_load(tmp_path / "load.json", written, output_format="vllm-json")

    assert json.loads((tmp_path / "load.json").read_text()) == {
        "load_history": [{"logical_expert_load": [[4, 3, 2], [1, 1, 8]]}]
    }


@pytest.mark.parametrize("name", ["vllm-json", "lmdeploy", "trtllm"])
@pytest.mark.parametrize("count", [0.5, 2.0**63, 1e300])
def test_counts_that_are_not_whole_are_refused(tmp_path: Path, name: str, count: float) -> None:
    """These formats hold integers; nothing is rounded, and nothing written."""
    written = Recording(samples=np.full((1, 1, 2), count), layer_ids=(3,), source="test")

    with pytest.raises(FormatError, match=r"whole token counts of test.* at \[0, 0, 0\]"):
        write_load(tmp_path / "load", written, output_format=name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "output_format"), [("load.json", None), ("load", None), ("load.pt", "sglang-pt")]
)
def test_a_recording_wants_a_format(tmp_path: Path, name: str, output_format: str | None) -> None:
    """Only .npz tells by itself, and not everything that is read is written."""
    written = Recording(samples=SAMPLES, layer_ids=(0, 1, 2), source="test")

    with pytest.raises(FormatError, match="output format of npz, sglang-json, vllm-json"):
        write_load(tmp_path / name, written, output_format=output_format)
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    """A recording is never mixed with another one."""
    written = Recording(samples=SAMPLES, layer_ids=(0, 1, 2), source="test")
    path = tmp_path / "statistic"
    path.mkdir()
    write_load(path, written, output_format="trtllm")
    with pytest.raises(FormatError, match="new or an empty folder"):
        write_load(path, written, output_format="trtllm")
    with pytest.raises(FormatError, match="missing"):
        write_load(tmp_path / "missing" / "statistic", written, output_format="trtllm")

    assert sorted(entry.name for entry in path.iterdir()) == [
        "meta_info.json",
        "rank0.safetensors",
    ]
    assert [entry.name for entry in tmp_path.iterdir()] == ["statistic"]


def test_rows_without_end_are_not_written(tmp_path: Path) -> None:
    """A layer id of 4000 would make 4000 rows of zeros of every sample."""
    samples: Any = np.ones((40000, 1, 1), dtype=np.int64)
    written = Recording(samples=samples, layer_ids=(4000,), source="test")

    with pytest.raises(FormatError, match="at most 134217728 counts"):
        write_load(tmp_path / "load.json", written, output_format="sglang-json")
    assert not list(tmp_path.iterdir())


def test_tensorrt_llm_is_told_the_experts_of_a_token(tmp_path: Path) -> None:
    """A recording does not say; unless the caller does, nothing is invented."""
    written = Recording(samples=SAMPLES, layer_ids=(0, 1, 2), source="test")
    for name, number, meta in (
        ("without", None, {"num_experts": 3}),
        ("with", 8, {"num_experts": 3, "num_experts_per_token": 8}),
    ):
        path = tmp_path / name
        write_load(path, written, output_format="trtllm", num_experts_per_token=number)

        assert json.loads((path / "meta_info.json").read_text()) == meta
        np.testing.assert_array_equal(SAMPLES, read_load(path).samples)
