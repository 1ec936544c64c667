"""`expertplane replay`."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from expertplane_planner import Topology
from expertplane_planner.cli.replay import replay
from expertplane_planner.replay import replay as replay_policies
from tests.planner.replay.spy import synthetic


if TYPE_CHECKING:
    from pathlib import Path


MACHINE = ("--ranks", "8", "--slots", "40")
PNG = b"\x89PNG\r\n\x1a\n"


def run(*arguments: str | Path) -> Result:
    """Runs the command."""
    return CliRunner().invoke(replay, [str(argument) for argument in arguments])


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Returns a trace of 4 windows of 4 samples, 2 layers and 32 experts."""
    path = tmp_path / "trace.npz"
    np.savez(path, samples=synthetic(0, num_windows=4, num_samples=4).numpy())
    return path


def document(trace: Path, *arguments: str) -> Any:
    """Returns what the command writes for machines."""
    output = trace.with_name("figures.json")
    result = run(trace, *MACHINE, *arguments, "--json", output)
    assert result.exit_code == 0, result.output
    return json.loads(output.read_text())


def test_the_figures_are_those_of_the_library(trace: Path) -> None:
    """A key per policy, `static` and `oracle` among them, with what the replay found."""
    found = document(trace, "--policy", "balanced", "--policy", "robust", "--every", "2")
    expected = replay_policies(
        synthetic(0, num_windows=4, num_samples=4),
        Topology(num_nodes=1, num_ranks=8, num_slots=40),
        ["balanced", "robust"],
        warmup_windows=2,
        every=2,
    )

    assert list(found["policies"]) == ["static", "balanced", "robust", "oracle"]
    for name, figures in found["policies"].items():
        row = expected.row(name)
        assert figures["balancedness"] == row.balancedness
        assert figures["moved_slots_per_layer"] == row.moved_slots_per_layer
        assert figures["seconds_median"] > 0
        assert figures["per_window"] == list(row.per_window)
        assert figures["per_layer"] == list(row.per_layer)
        assert figures["gap_closed"] == row.gap_closed
    sizes = ("num_windows", "num_samples", "num_layers", "num_logical_experts", "num_slots")
    assert [found[name] for name in sizes] == [4, 4, 2, 32, 40]
    assert (found["warmup_windows"], found["every"], found["mode"]) == (2, 2, "global")


def test_the_table_is_for_people(trace: Path) -> None:
    """A row per policy between the two references; three policies by default."""
    result = run(trace, *MACHINE, "--warmup-windows", "3")

    assert result.exit_code == 0, result.output
    assert "windows 4-4 of 4" in result.stdout
    rows = [line.split("│") for line in result.stdout.splitlines() if line.startswith("│")]
    names = [row[1].strip() for row in rows]
    assert names == ["static", "deepseek", "balanced", "robust", "oracle"]
    gaps = [row[5].strip() for row in rows]
    assert (gaps[2], gaps[4]) == ("0.0%", "100.0%")


def test_a_policy_named_twice_is_replayed_once(trace: Path) -> None:
    """The order is that of first mention."""
    found = document(trace, "--policy", "robust", "--policy", "balanced", "--policy", "robust")

    assert list(found["policies"]) == ["static", "robust", "balanced", "oracle"]


def test_a_name_is_shown_as_it_is(trace: Path, tmp_path: Path, strange: str) -> None:
    """Braces and brackets in the name of somebody's policy mean nothing."""
    picture = tmp_path / "picture.png"
    result = run(trace, *MACHINE, "--policy", strange, "--plot", picture)

    assert result.exit_code == 0, result.output
    assert strange in result.stdout
    assert picture.read_bytes().startswith(PNG)


@pytest.mark.parametrize(
    ("arguments", "expectation"),
    [
        (("--policy", "nothing"), "'nothing'"),
        (("--warmup-windows", "4"), "got 4"),
        (("--every", "3"), "got 3"),
        (("--spill", "1"), "got 1"),
        (("--nodes", "3"), "got 8 and 3"),
    ],
)
def test_what_does_not_fit_is_one_line(
    trace: Path, arguments: tuple[str, ...], expectation: str
) -> None:
    """The value is named, on stderr, with exit code 1."""
    result = run(trace, *MACHINE, *arguments)

    assert (result.exit_code, result.stdout) == (1, "")
    assert expectation in result.stderr
    assert len(result.stderr.splitlines()) == 1


def _archive(path: Path, header: bytes, content: bytes = b"") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("samples.npy", header + content)


def _header(shape: str, descr: str = "<i4") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def _malformed(path: Path, kind: str) -> None:
    ones = np.ones((2, 2, 1, 8), dtype=np.int32)
    objects = np.empty((1, 1, 1, 1), dtype=object)
    arrays: dict[str, dict[str, Any]] = {
        "other key": {"weight": ones},
        "three dimensions": {"samples": ones[0]},
        "five dimensions": {"samples": ones[None]},
        "no windows": {"samples": ones[:0]},
        "objects": {"samples": objects},
        "booleans": {"samples": ones > 0},
        "negative": {"samples": -ones},
        "not a number": {"samples": ones * np.nan},
    }
    if kind in arrays:
        np.savez(path, **arrays[kind])
    elif kind == "declares too much":
        _archive(path, _header("(1024, 1024, 1024, 1024)"))
    elif kind == "cut off":
        _archive(path, _header("(2, 2, 1, 8)"), bytes(100))
    elif kind == "goes on":
        _archive(path, _header("(2, 2, 1, 8)"), bytes(4 * 32 + 1))
    elif kind == "negative shape":
        _archive(path, _header("(2, -2, -1, 8)"), bytes(4 * 32))
    elif kind == "damaged":
        np.savez(path, samples=ones)
        content = bytearray(path.read_bytes())
        content[content.index(b"\x01\x00\x00\x00" * 8)] = 3
        path.write_bytes(content)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "text":
        path.write_text("samples")


@pytest.mark.parametrize(
    "kind",
    [
        *("absent", "text", "pipe", "damaged", "cut off", "goes on", "declares too much"),
        *("other key", "three dimensions", "five dimensions", "no windows", "negative shape"),
        *("objects", "booleans", "negative", "not a number"),
    ],
)
def test_a_malformed_trace_is_one_line(tmp_path: Path, kind: str) -> None:
    """Nothing is unpickled, no memory is asked for that the file does not fill."""
    path = tmp_path / "trace.npz"
    _malformed(path, kind)
    result = run(path, "--ranks", "2", "--slots", "8")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("dtype", ["<u1", "<u2", ">i4", "<i8", "<f2", ">f8"])
@pytest.mark.parametrize("is_compressed", [False, True])
def test_any_numbers_will_do(trace: Path, tmp_path: Path, dtype: str, is_compressed: bool) -> None:
    """Small or large, signed or not, of either byte order, by column or row, compressed or not."""
    with np.load(trace) as archive:
        samples = archive["samples"] % 256
    plain, other = tmp_path / "plain.npz", tmp_path / "other.npz"
    np.savez(plain, samples=samples)
    save = np.savez_compressed if is_compressed else np.savez
    save(other, samples=np.asfortranarray(samples.astype(dtype)))
    found = [document(path, "--policy", "balanced")["policies"] for path in (plain, other)]

    assert found[0]["balanced"]["per_window"] == found[1]["balanced"]["per_window"]


def test_without_matplotlib_nothing_is_solved(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says which extra brings it, with exit code 2."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name == "matplotlib" else find_spec(name, *more),
    )
    result = run(trace, *MACHINE, "--plot", tmp_path / "picture.png")

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "`expertplane replay --plot` needs: pip install 'expertplane[plots]'\n"


@pytest.mark.parametrize("name", ["replay", "trace"])
def test_help_does_not_wait_for_torch(name: str) -> None:
    """Whoever asks for help does not pay for what only a replay needs."""
    program = (
        "import sys\n"
        f"from expertplane_planner.cli.{name} import {name}\n"
        f"{name}(['--help'], standalone_mode=False)\n"
        "assert not {'torch', 'matplotlib'} & {*sys.modules}"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )

    assert "Usage:" in done.stdout


def test_reading_does_not_change_what_is_replayed(trace: Path) -> None:
    """What is read is writable memory of its own, as torch wants it."""
    from expertplane_planner.cli.replay_trace import read_trace

    samples = torch.from_numpy(read_trace(trace))

    assert torch.equal(samples, synthetic(0, num_windows=4, num_samples=4))
