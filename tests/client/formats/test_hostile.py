"""Files that were made to do harm: to run code, or to ask for more memory than there is."""

from __future__ import annotations

import io
import json
import os
import pickle
import tracemalloc
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from expertplane_client.formats import FormatError, json_file, read_load, read_placement

from .files import (
    WEIGHT,
    npy,
    pickle_of,
    repack_pt,
    save_json,
    save_pt,
    save_raw,
    save_statistic,
)


if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


MAX_BYTES = 2**26


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """Fails a test that asks for more than 64 MiB, whether or not it gets them."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MAX_BYTES
    finally:
        tracemalloc.stop()


class Call:
    """Pickles as a call of anything."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


@pytest.mark.parametrize(
    "call",
    [
        Call(pytest.fail, "the file was executed"),
        Call(os.getcwd),
        Call(bytearray, 2**40),
        Call(torch.Tensor, 2**40),
        Call(torch.device, "cpu"),
        Call(set, (1, 2)),
    ],
    ids=["fail", "getcwd", "bytearray", "tensor", "device", "set"],
)
def test_a_torch_file_may_only_build_tensors(tmp_path: Path, call: Call) -> None:
    """Also what torch's reader of weights alone would have called."""
    path = save_pt(tmp_path, torch.tensor(WEIGHT))
    repack_pt(path, {"data.pkl": pickle.dumps({"logical_count": call}, protocol=2)})

    with pytest.raises(FormatError, match="nothing but numbers, text, lists, dicts and tensors"):
        read_load(path)


def test_a_tensor_whose_state_is_replaced_is_refused(tmp_path: Path) -> None:
    """BUILD on a tensor would give it any storage and any shape."""
    path = save_pt(tmp_path, torch.tensor(WEIGHT))
    program = pickle_of(path)
    repack_pt(path, {"data.pkl": program.removesuffix(b".") + b")b."})

    with pytest.raises(FormatError, match="got 'BUILD'"):
        read_load(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"K\x03K\x03\x86", b"J\x00\x00\x00\x40K\x03\x86"),  # 2**30 rows
        (b"K\x09t", b"J\x00\x00\x00\x40t"),  # a storage of 2**30 elements
        (b"IntStorage", b"LongStorage"),
    ],
    ids=["shape", "storage", "type"],
)
def test_a_tensor_larger_than_its_file_is_refused(tmp_path: Path, old: bytes, new: bytes) -> None:
    """What a program declares must lie in the archive."""
    path = save_pt(tmp_path, torch.tensor(WEIGHT))
    program = pickle_of(path)
    assert program.count(old) == 1
    repack_pt(path, {"data.pkl": program.replace(old, new)})

    with pytest.raises(FormatError, match="Expected"):
        read_load(path)


@pytest.mark.parametrize("num_rows", [2**6, 2**25])
def test_a_tensor_that_repeats_its_storage_is_refused(tmp_path: Path, num_rows: int) -> None:
    """A stride of 0 makes gigabytes of one number, within the bound of elements or beyond it."""
    path = save_pt(tmp_path, torch.ones(1, 1).expand(num_rows, 2**20))

    with pytest.raises(FormatError, match="all in the file"):
        read_load(path)


def test_a_compressed_torch_file_is_refused(tmp_path: Path) -> None:
    """Torch never compresses; a bomb does."""
    path = save_pt(tmp_path, torch.tensor(WEIGHT))
    repack_pt(path, {}, compression=zipfile.ZIP_DEFLATED)

    with pytest.raises(FormatError, match="without compression"):
        read_load(path)


def test_old_torch_files_are_refused(tmp_path: Path) -> None:
    """Before torch 1.6 a file was a bare pickle, and reading one was never safe."""
    path = tmp_path / "load.pt"
    torch.save(torch.tensor(WEIGHT), path, _use_new_zipfile_serialization=False)

    with pytest.raises(FormatError, match="torch 1.6 or newer"):
        read_load(path)


def test_a_flipped_bit_in_a_tensor_is_seen(tmp_path: Path) -> None:
    """The archive has checksums; a count that changed on its way is not a count."""
    path = save_pt(tmp_path, torch.full((4, 4), 0x5C5D5C5D))
    content = path.read_bytes()
    assert b"\x5d\x5c\x5d\x5c" in content
    path.write_bytes(content.replace(b"\x5d\x5c\x5d\x5c", b"\x5d\x5c\x5d\x5b", 1))

    with pytest.raises(FormatError, match=r"sound \.pt file, got: Bad CRC-32"):
        read_load(path)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [1]\nb: *a\n",
        "a: &a [1]\n",
        "a: [&b [1, 1], *b, *b]\n",
        "!!python/object/apply:os.getcwd []\n",
        "a: !!python/name:os.system\n",
        "[" * 1000,
        "a: {a: {a: {a: {a: {a: {a: {a: {a: 1}}}}}}}}\n",
        "a: 1\na: 2\n",
        "? [1]\n: 2\n",
        "a: 1\n---\nb: 2\n",
        "",
        "a: [1\n",
        "\x00",
        "\t- x",
    ],
)
def test_yaml_that_is_more_than_data_is_refused(tmp_path: Path, text: str) -> None:
    """No aliases that multiply, no tags that construct, no depth, no key twice."""
    with pytest.raises(FormatError, match="plain YAML"):
        read_placement(save_json(tmp_path, text, "plan.yaml"))


def test_yaml_in_the_pure_parser_is_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where PyYAML was built without libyaml."""
    monkeypatch.delattr("yaml.CSafeLoader")
    path = save_json(tmp_path, "a: &a [1]\nb: *a\n", "plan.yaml")

    with pytest.raises(FormatError, match="an anchor or alias"):
        read_placement(path)


@pytest.mark.parametrize(
    "text",
    [
        '{"logical_count": [[1, 2]], "logical_count": [[3, 4]]}',
        '{"logical_count": [[1, NaN]]}',
        '{"logical_count": [[1, -Infinity]]}',
        '{"logical_count": [[1, true]]}',
        f'{{"logical_count": [[{"9" * 5000}]]}}',
        f'{{"logical_count": [[{2**63}]]}}',
        f'{{"logical_count": [[1.5, {10**400}]]}}',
    ],
    ids=["twice", "nan", "infinite", "bool", "digits", "int64", "float"],
)
def test_json_that_python_would_have_taken_is_refused(tmp_path: Path, text: str) -> None:
    """A key twice is two answers; NaN is no JSON; true is no count."""
    with pytest.raises(FormatError, match="Expected"):
        read_load(save_json(tmp_path, text))


def test_a_constant_that_is_no_json_is_named(tmp_path: Path) -> None:
    """Python would read it, and nobody else."""
    with pytest.raises(FormatError, match="to hold JSON, got: NaN, which is no number"):
        read_load(save_json(tmp_path, '{"logical_count": [[1]], "rate": NaN}'))


def test_json_is_counted_before_it_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of a million empty objects would be a hundred times its file."""
    monkeypatch.setattr(json_file, "MAX_JSON_VALUES", 10)
    with pytest.raises(FormatError, match="at most 10 values, got 11"):
        read_load(save_json(tmp_path, json.dumps([0] * 11)))
    monkeypatch.setattr(json_file, "MAX_JSON_BYTES", 30)
    with pytest.raises(FormatError, match="at most 30 bytes, got 33"):
        read_load(save_json(tmp_path, json.dumps([0] * 11)))


@pytest.mark.parametrize("version", [b"\x02\x00", b"\x03\x00"])
def test_a_header_of_gigabytes_is_refused(tmp_path: Path, version: bytes) -> None:
    """Versions after the first have a length of 32 bits, which deflates to nothing."""
    num_bytes = 2**27
    path = tmp_path / "load.npz"
    header = b"\x93NUMPY" + version + num_bytes.to_bytes(4, "little")
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("weight.npy", "w") as member,
    ):
        member.write(header)
        for _ in range(num_bytes // 2**20):
            member.write(b" " * 2**20)

    with pytest.raises(FormatError, match=r"npy version \(1, 0\), got \([23], 0\)"):
        read_load(path)


@pytest.mark.parametrize(
    "shape", ["(2147483647, 2147483647, 3)", "(134217729, 1, 1)", "(-1, 1, 1)", "(4, 4, 4)"]
)
def test_a_pattern_that_lies_is_refused(tmp_path: Path, shape: str) -> None:
    """The shape in a header is checked against the file."""
    path = tmp_path / "pattern.npy"
    path.write_bytes(npy(f"{{'descr': '<i4', 'fortran_order': False, 'shape': {shape}}}"))

    with pytest.raises(FormatError, match="all in the file"):
        read_placement(path)


def test_an_archive_of_rows_without_end_is_refused(tmp_path: Path) -> None:
    """Ten million layers of one expert fit the bound of elements, and no model."""
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((5000, 1), dtype=np.int8))

    with pytest.raises(FormatError, match="at most 4096 rows, got 5000"):
        read_load(save_raw(tmp_path, buffer.getvalue()))


def _header(declared: dict[str, Any], *, length: int | None = None) -> bytes:
    text = json.dumps(declared).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        _header({}, length=2**40),
        _header({"0_3": {"dtype": "I64", "shape": [2**40], "data_offsets": [0, 2**43]}}),
        _header({"0_3": {"dtype": "I64", "shape": [2**62, 4], "data_offsets": [0, 0]}}),
        _header({"0_3": {"dtype": "I64", "shape": [3], "data_offsets": [0, 24]}}) + b"\0" * 23,
        _header({"0_3": {"dtype": "I64", "shape": [3], "data_offsets": [0, 24]}}) + b"\0" * 25,
        _header({"0_3": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}) + b"\0" * 6,
        _header({"0_3": {"dtype": "X", "shape": [3], "data_offsets": [0, 6]}}) + b"\0" * 6,
    ],
    ids=["empty", "noise", "header", "huge", "overflow", "short", "long", "bfloat16", "dtype"],
)
def test_safetensors_that_lie_are_refused(tmp_path: Path, content: bytes) -> None:
    """Sizes in the header are checked against the file."""
    path = save_statistic(tmp_path, {})
    (path / "rank0.safetensors").write_bytes(content)

    with pytest.raises(FormatError, match=r"rank0.safetensors"):
        read_load(path)


def test_a_header_of_safetensors_has_a_bound(tmp_path: Path) -> None:
    """It is read before anything is known about its keys."""
    path = save_statistic(tmp_path, {})
    (path / "rank0.safetensors").write_bytes(_header({}, length=2**24 + 1))

    with pytest.raises(FormatError, match="header of at most 16777216 bytes, got 16777217"):
        read_load(path)


def test_counts_are_bounded_before_they_are_widened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 MiB of bytes, more counts than are taken, would first become 64 MiB of integers."""
    monkeypatch.setattr("expertplane_client.formats.trtllm.MAX_ELEMENTS", 2**20)
    counts = np.zeros(2**22, dtype=np.uint8)
    ranks = {"rank0.safetensors": {"0_3": counts, "0_4": counts}}
    path = save_statistic(tmp_path, ranks, {"num_experts": len(counts)})

    with pytest.raises(FormatError, match="1048576 counts, got 2 tensors of 4194304"):
        read_load(path)


def test_a_folder_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many names are looked at."""
    monkeypatch.setattr("expertplane_client.formats.files.MAX_FOLDER_FILES", 2)
    for number in range(3):
        (tmp_path / f"rank{number}.safetensors").touch()

    with pytest.raises(FormatError, match="at most 2 files, got more"):
        read_load(tmp_path)


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    """Reading one would wait for whoever writes to it."""
    path = tmp_path / "load.json"
    os.mkfifo(path)

    with pytest.raises(FormatError, match="to be a file"):
        read_load(path)
