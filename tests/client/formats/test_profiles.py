"""What the engines refuse, and what a placement must be before anybody asks them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from expertplane_client.formats import (
    ENGINES,
    PLACEMENT_FORMATS,
    FormatError,
    PlacementMap,
    engine_profile,
    write_placement,
)

from .files import PHY2LOG, model_of, placement


if TYPE_CHECKING:
    from pathlib import Path


SUFFIXES = {
    "npz": ".npz",
    "json": ".json",
    "sglang": ".json",
    "vllm": ".pt",
    "hygon": ".json",
    "trtllm": ".yaml",
    "ascend": ".json",
    "omni": ".npy",
}


def twice() -> PlacementMap:
    """Returns a placement with expert 3 in slots 4 and 5, on rank 1, of the model's layer 8."""
    slots = [[0, 1, 2, 3, 0, 1], [2, 0, 1, 3, 3, 0]]
    return placement(phy2log=np.array(slots), num_ranks=2, layer_ids=(5, 8), num_rows=9)


def test_every_engine_has_a_format_of_its_own() -> None:
    """The profile's format exists and is another for each engine."""
    formats = [engine_profile(name).output_format for name in ENGINES]

    assert ENGINES == ("vllm", "sglang", "trtllm", "ascend")
    assert len(set(formats)) == len(ENGINES)
    assert set(formats) <= set(PLACEMENT_FORMATS)
    assert set(SUFFIXES) == set(PLACEMENT_FORMATS)
    with pytest.raises(FormatError, match="engine of vllm, sglang, trtllm, ascend, got 'tgi'"):
        engine_profile("tgi")


@pytest.mark.parametrize("name", ["ascend", "omni"])
def test_two_replicas_on_a_rank_are_refused(tmp_path: Path, name: str) -> None:
    """The sentence names layer, row, rank and both slots, and a way out; nothing is written."""
    expected = (
        r"expert 3 in slots 3 and 4 of rank 1 in layer 8 \(row 1\); choose a policy .*'balanced'"
    )
    with pytest.raises(FormatError, match=expected):
        write_placement(tmp_path / f"map{SUFFIXES[name]}", twice(), output_format=name)

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["npz", "json", "sglang", "vllm", "hygon", "trtllm"])
def test_the_others_take_two_replicas_on_a_rank(tmp_path: Path, name: str) -> None:
    """DeepSeek's own algorithm makes such plans."""
    path = tmp_path / f"map{SUFFIXES[name]}"
    write_placement(path, twice(), output_format=name, model=model_of(name))

    assert len(list(tmp_path.iterdir())) == 1


def test_replicas_on_different_ranks_are_fine() -> None:
    """Only slots of one rank are compared."""
    engine_profile("ascend").check(
        placement(num_ranks=3, phy2log=np.array([[0, 1, 2, 3, 0, 1]] * 2))
    )


def test_ranks_must_be_known_where_they_matter(tmp_path: Path) -> None:
    """Without them nobody can tell which slots share a rank."""
    with pytest.raises(FormatError, match="number of ranks for vLLM-Ascend, got none"):
        engine_profile("ascend").check(placement(num_ranks=None))


def test_hidden_layers_must_be_known_where_they_matter() -> None:
    """A file of the MoE layers alone would be read as the first layers of the model."""
    with pytest.raises(FormatError, match="number of hidden layers for SGLang"):
        engine_profile("sglang").check(placement(num_rows=None))


@pytest.mark.parametrize("name", ["sglang", "vllm", "hygon", "trtllm", "ascend", "omni"])
def test_masked_ranks_are_refused_by_engines(tmp_path: Path, name: str) -> None:
    """A plan for the ranks that are left keeps its numbers only in our own files."""
    masked = placement(phy2log=np.array([[0, 1, 2, 3, -1, -1], [0, 2, 3, 1, -1, -1]]))
    path = tmp_path / f"map{SUFFIXES[name]}"

    with pytest.raises(FormatError, match=r"got none in slot 4 of layer 3 \(row 0\)"):
        write_placement(path, masked, output_format=name)
    assert not list(tmp_path.iterdir())
    write_placement(tmp_path / "map.npz", masked)


def test_more_replicas_than_vllm_holds_are_refused() -> None:
    """Its map of an expert's slots has room for 1024."""
    slots = np.array([[0] * 1025 + [1]])
    crowded = placement(
        phy2log=slots, num_logical_experts=2, num_ranks=1, layer_ids=(7,), num_rows=8
    )

    with pytest.raises(FormatError, match=r"1024 replicas .*got 1025 of expert 0 in layer 7"):
        engine_profile("vllm").check(crowded)
    engine_profile("trtllm").check(crowded)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phy2log": np.array(PHY2LOG, dtype=float)}, "of integers, got float64"),
        ({"phy2log": np.array(PHY2LOG[0])}, r"\[layers, slots\], got \[6\]"),
        ({"phy2log": np.zeros((2, 0), dtype=int)}, r"\[layers, slots\]"),
        ({"phy2log": np.zeros((257, 1), dtype=int)}, "at most 256 layers"),
        ({"phy2log": np.zeros((1, 65537), dtype=int)}, "65536 slots"),
        ({"num_logical_experts": 0}, "1 to 4096 logical experts, got 0"),
        ({"num_logical_experts": 3}, r"in \[0, 3\), got 3 in slot 3 of layer 3 \(row 0\)"),
        ({"num_logical_experts": 5}, r"none for expert 4 in layer 3 \(row 0\)"),
        ({"phy2log": np.array(PHY2LOG) - 2}, r"got -2 in slot 0 of layer 3 \(row 0\)"),
        ({"num_ranks": 4}, "shared evenly by the ranks, got 4"),
        ({"num_ranks": 0}, "shared evenly"),
        ({"layer_ids": (3,)}, "layer id for each of 2"),
        ({"layer_ids": (4, 3)}, "ascending"),
        ({"layer_ids": (3, 6)}, "below 6"),
        ({"num_rows": 4}, "below 4.* got 4"),
        ({"num_rows": 2**40}, "at most 4096"),
        (
            {
                "phy2log": np.array([[0] * 60000 + list(range(4096))]),
                "num_logical_experts": 4096,
                "layer_ids": (),
                "num_ranks": None,
            },
            "sane number of replicas, got 60001",
        ),
    ],
)
def test_no_other_placement_can_be_made(changes: Any, message: str) -> None:
    """Checked at birth, so that every writer can rely on it."""
    with pytest.raises(FormatError, match=message):
        placement(**changes)


def test_a_placement_cannot_be_changed() -> None:
    """The map is read-only and nobody else's; layers count from 0 where nobody names them."""
    slots = np.array(PHY2LOG)
    born = PlacementMap(phy2log=slots, num_logical_experts=4)
    slots[:] = 0

    assert (born.phy2log.tolist(), born.layer_ids) == (PHY2LOG, (0, 1))
    with pytest.raises(ValueError, match="read-only"):
        born.phy2log[0, 0] = 1


@pytest.mark.parametrize(
    ("name", "output_format", "message"),
    [
        ("map.json", None, "told which format .*: json, sglang, hygon, ascend"),
        ("map.csv", None, r"file of \.npz"),
        ("map", None, r"file of \.npz"),
        ("map.json", "vllm", r"ends in \.pt or \.pth for the format vllm"),
        ("map.pt", "sglang", r"ends in \.json"),
        ("map.json", "tgi", "format of placements of npz, .*got 'tgi'"),
    ],
)
def test_a_name_that_does_not_tell_is_refused(
    tmp_path: Path, name: str, output_format: str | None, message: str
) -> None:
    """Engines go by the suffix, and several use JSON."""
    with pytest.raises(FormatError, match=message):
        write_placement(tmp_path / name, placement(), output_format=output_format)
    assert not list(tmp_path.iterdir())
