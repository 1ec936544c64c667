"""Programs of .pt files that build more than the file is, by sharing what they build."""

from __future__ import annotations

import pickle
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
import torch

from expertplane_client.formats import FormatError, read_load, torch_program

from .files import WEIGHT, repack_pt, save_pt


if TYPE_CHECKING:
    from pathlib import Path


DOUBLED = b")q\x01" + b"".join(b"h\x01h\x01\x86q\x01" for _ in range(60))
"""A tuple of itself, twice, sixty levels deep, left on the stack."""


def save_program(folder: Path, program: bytes) -> Path:
    """Writes a .pt file with a program of the test's own."""
    path = save_pt(folder, torch.tensor(WEIGHT))
    repack_pt(path, {"data.pkl": program})
    return path


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02" + DOUBLED + b"}h\x01K\x01s.",
        b"\x80\x02ccollections\nOrderedDict\n" + DOUBLED + b"K\x01\x86\x85\x85R.",
        b"\x80\x02" + DOUBLED + b"Q.",
        b"\x80\x02" + DOUBLED + b"\x85Q.",
        b"\x80\x02" + DOUBLED.replace(b"h\x01h\x01\x86", b"](h\x01h\x01e") + b".",
        b"\x80\x02]q\x01h\x01a.",
        b"\x80\x02]q\x01]q\x02h\x01ah\x01h\x02aah\x01.",
    ],
    ids=["key", "ordered", "storage", "storage name", "lists", "itself", "each other"],
)
def test_what_grows_without_end_is_refused(tmp_path: Path, program: bytes) -> None:
    """Before it is hashed or printed, which would take 2**60 steps."""
    path = save_program(tmp_path, program)

    with pytest.raises(FormatError, match="wherever they are repeated, got more"):
        read_load(path)


def test_a_list_filled_after_it_was_shared_is_refused(tmp_path: Path) -> None:
    """Each is empty when it is put into the one before, twice, and holds the next one later."""
    lists = b"".join(b"]q%c" % n for n in range(61))
    pairs = b"".join(b"h%c(h%ch%ce" % (n, n + 1, n + 1) for n in range(60))
    path = save_program(tmp_path, b"\x80\x02" + lists + pairs + b"h\x00.")

    with pytest.raises(FormatError, match="wherever they are repeated, got more"):
        read_load(path)


@pytest.mark.parametrize(
    "program",
    [b"\x80\x02\x86.", b"\x80\x02h\x01.", b"\x80\x02q\x01.", b"\x80\x02e.", b"\x80\x02R."],
    ids=["tuple", "get", "put", "appends", "reduce"],
)
def test_a_program_without_its_operands_is_refused(tmp_path: Path, program: bytes) -> None:
    """Whatever a damaged program runs into is told in one sentence."""
    with pytest.raises(FormatError, match=r"sound \.pt file"):
        read_load(save_program(tmp_path, program))


def test_containers_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte of a program makes a list of fifty."""
    monkeypatch.setattr(torch_program, "MAX_CONTAINERS", 10)

    with pytest.raises(FormatError, match="at most 10 lists, tuples and dicts"):
        read_load(save_program(tmp_path, b"\x80\x02" + 11 * b"]" + b"."))


def test_a_shared_list_is_not_printed(tmp_path: Path) -> None:
    """A few levels fit the bound of values, and their text would be many times the file."""
    rank: list[Any] = []
    for _ in range(12):
        rank = [rank, rank]
    records = [{"forward_pass_id": 1, "rank": rank}]
    content = {"records": records, "last_physical_to_logical_map": torch.tensor([[0, 1]])}
    save_pt(tmp_path, content, "expert_distribution_recorder_1.5_0.pt")

    with pytest.raises(FormatError, match=r"as its name says, got list\.$"):
        read_load(tmp_path)


def test_what_torch_writes_is_read(tmp_path: Path) -> None:
    """Shared tensors and text, nested dicts and pairs are no harm."""
    tensor = torch.tensor(WEIGHT)[None]
    more = [{"name": "x", "pair": (1, 2.5), "tensor": tensor, "none": None} for _ in range(3000)]
    path = save_pt(tmp_path, {"logical_count": tensor, "rank": 0, "more": more, "big": 2**100})

    assert read_load(path).samples.tolist() == [WEIGHT.tolist()]


def test_a_walk_costs_about_what_the_program_does() -> None:
    """A list of numbers takes no memory for each of them beyond the stack."""
    program = pickle.dumps(list(range(2**17)), protocol=2)
    tracemalloc.start()
    try:
        torch_program.check_program(program, source="test")
        assert tracemalloc.get_traced_memory()[1] < 8 * len(program)
    finally:
        tracemalloc.stop()
