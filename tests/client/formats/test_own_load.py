"""Expertplane's recordings, and the JSON of SGLang, which they share their rules with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from expertplane_client.formats import FormatError, Recording, parse_layer_ids, read_load

from .files import WEIGHT, npy, save, save_json, save_raw


if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("dtype", ["<i2", ">i4", "<i8", "<u4", "<f4", "<f8"])
def test_a_weight_is_one_sample(tmp_path: Path, dtype: str) -> None:
    """A summed load of any usual dtype comes back exactly, as int64 or float64."""
    found = read_load(save(tmp_path, weight=WEIGHT.astype(dtype)))

    np.testing.assert_array_equal(WEIGHT[np.newaxis], found.samples)
    assert found.samples.dtype == (np.float64 if "f" in dtype else np.int64)
    assert (
        found.num_samples,
        found.num_layers,
        found.num_logical_experts,
        found.layer_ids,
    ) == (1, 3, 3, (0, 1, 2))


def test_samples_stay_apart(tmp_path: Path) -> None:
    """Several samples are kept one by one; their sum is the weight."""
    found = read_load(save(tmp_path, samples=np.stack([WEIGHT, 2 * WEIGHT])))

    assert found.num_samples == 2
    np.testing.assert_array_equal(3 * WEIGHT, found.weight())


def test_compressed_and_fortran_arrays_are_read(tmp_path: Path) -> None:
    """How numpy laid an array out does not matter."""
    path = tmp_path / "load.npz"
    np.savez_compressed(path, weight=np.asfortranarray(WEIGHT))

    np.testing.assert_array_equal(WEIGHT, read_load(path).samples[0])


@pytest.mark.parametrize("rows", [WEIGHT.tolist(), [WEIGHT.tolist(), WEIGHT.tolist()]])
def test_a_dump_of_sglang_is_read(tmp_path: Path, rows: Any) -> None:
    """`logical_count` is [layers, experts], or has the samples before it."""
    found = read_load(save_json(tmp_path, {"logical_count": rows, "rank": 0}))

    np.testing.assert_array_equal(WEIGHT, found.samples[-1])


def test_rows_are_dropped_by_layer_id_only(tmp_path: Path) -> None:
    """A row without load is a layer like any other until the caller leaves it out."""
    path = save(tmp_path, weight=WEIGHT)

    assert read_load(path).num_layers == 3
    kept = read_load(path, parse_layer_ids("1-2"))
    assert kept.layer_ids == (1, 2)
    np.testing.assert_array_equal(WEIGHT[1:], kept.samples[0])


def test_a_recording_cannot_be_changed(tmp_path: Path) -> None:
    """The samples are read-only and nobody else's."""
    samples = WEIGHT[np.newaxis].astype(np.int64)
    recording = Recording(samples=samples, layer_ids=(0, 1, 2), source="test")
    samples[:] = 9

    np.testing.assert_array_equal(WEIGHT, recording.samples[0])
    with pytest.raises(ValueError, match="read-only"):
        recording.samples[0, 0, 0] = 1


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"other": WEIGHT},
        {"weight": WEIGHT, "samples": WEIGHT[np.newaxis]},
        {"weight": WEIGHT[0]},
        {"samples": WEIGHT[np.newaxis, np.newaxis]},
        {"weight": np.zeros((0, 3))},
        {"weight": WEIGHT - 1},
        {"weight": np.full((2, 2), np.nan)},
        {"weight": np.full((2, 2), np.inf)},
        {"weight": WEIGHT.astype(bool)},
        {"weight": WEIGHT.astype(complex)},
        {"weight": WEIGHT.astype(str)},
        {"weight": np.full((1, 1), 2**64 - 1, dtype=np.uint64)},
        {"weight": np.array([[{}]], dtype=object)},
    ],
    ids=str,
)
def test_an_archive_without_token_counts_is_refused(tmp_path: Path, arrays: Any) -> None:
    """Wrong keys, dimensions, dtypes and values are each told in one sentence."""
    path = save(tmp_path, **arrays)

    with pytest.raises(FormatError, match="Expected .*load.npz"):
        read_load(path)


def test_a_pickled_object_is_never_loaded(tmp_path: Path) -> None:
    """Reading a file cannot run the code that somebody hid in it."""

    class Trap:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("the file was executed",))

    trap = np.empty((1, 1), dtype=object)
    trap[0, 0] = Trap()

    with pytest.raises(FormatError, match="integers or floats"):
        read_load(save(tmp_path, weight=trap))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999, 99999999)}"),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (16384, 8192)}"),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2)}", b"\0" * 31),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 2)}", b"\0" * 32),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1, 1)}", b"\x80\x04."),
        npy("{'descr': '<f8'"),
        npy("[" * 500),
        npy("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1, 1)}", b"\0" * 8),
    ],
    ids=[
        "empty",
        "magic",
        "huge",
        "declared",
        "short",
        "negative",
        "object",
        "cut",
        "deep",
        "struct",
    ],
)
def test_an_array_that_lies_is_refused(tmp_path: Path, content: bytes) -> None:
    """What a header declares is checked against the file before memory is asked for."""
    with pytest.raises(FormatError, match="Expected"):
        read_load(save_raw(tmp_path, content))


@pytest.mark.parametrize(
    "document",
    [
        "",
        "{",
        "[]",
        "{}",
        "[" * 100000,
        {"logical_count": None},
        {"logical_count": "3"},
        {"logical_count": []},
        {"logical_count": [[]]},
        {"logical_count": [1, 2]},
        {"logical_count": [[1, 2], [3]]},
        {"logical_count": [[1, "2"]]},
        {"logical_count": [[1, None]]},
        {"logical_count": [[1, {}]]},
        {"logical_count": [[True, False]]},
        {"logical_count": [[1, -2]]},
        {"logical_count": [[2**80]]},
        {"logical_count": [[[[1]]]]},
        '{"logical_count": [[NaN]]}',
        '{"logical_count": [[1e999]]}',
    ],
    ids=lambda document: str(document)[:40],
)
def test_a_dump_without_token_counts_is_refused(tmp_path: Path, document: Any) -> None:
    """Anything but rectangles of counts is told in one sentence."""
    path = save_json(tmp_path, document)

    with pytest.raises(FormatError, match="Expected"):
        read_load(path)


@pytest.mark.parametrize("name", ["load.npz", "load.json", "load.csv", "load"])
def test_a_file_that_is_not_there_is_told(tmp_path: Path, name: str) -> None:
    """A wrong path or suffix names the file."""
    with pytest.raises(FormatError, match="load"):
        read_load(tmp_path / name)


@pytest.mark.parametrize("layer_ids", [(), (3,), (1, 1), (2, 1), (-1,)])
def test_rows_that_are_not_there_are_refused(tmp_path: Path, layer_ids: Any) -> None:
    """Layer ids must be ascending rows of the file."""
    path = save(tmp_path, weight=WEIGHT)

    with pytest.raises(FormatError, match="Expected layer"):
        read_load(path, layer_ids)
