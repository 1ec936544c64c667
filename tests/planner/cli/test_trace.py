"""`expertplane trace`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner, Result

from expertplane_planner.cli.replay_trace import read_trace
from expertplane_planner.cli.trace import trace
from expertplane_planner.traces import PRESETS


if TYPE_CHECKING:
    from pathlib import Path


SMALL = ("--windows", "3", "--samples", "2", "--layers", "2")


def run(*arguments: str | Path) -> Result:
    """Runs the command."""
    return CliRunner().invoke(trace, [str(argument) for argument in arguments])


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_trace_is_written(tmp_path: Path, preset: str) -> None:
    """Windows, samples, layers, experts; every layer has 8 of 256 experts for 8192 tokens."""
    output = tmp_path / "trace.npz"
    result = run("--preset", preset, *SMALL, "--output", output)

    assert result.exit_code == 0, result.output
    assert "3 x 2 x 2 x 256" in result.stdout
    with np.load(output, allow_pickle=False) as archive:
        assert list(archive) == ["samples"]
        samples = archive["samples"]
    assert (samples.shape, samples.dtype) == ((3, 2, 2, 256), np.int32)
    assert (samples.sum(axis=-1) == 8192 * 8).all()
    assert np.array_equal(read_trace(output), samples)


def test_the_same_options_write_the_same_bytes(tmp_path: Path) -> None:
    """Another seed writes others; what was there before is replaced."""
    output, contents = tmp_path / "trace.npz", []
    for seed in ("0", "0", "1"):
        done = run("--preset", "dsv3", *SMALL, "--seed", seed, "--output", output)
        assert done.exit_code == 0
        contents.append(output.read_bytes())

    assert contents[0] == contents[1] != contents[2]
    assert list(tmp_path.iterdir()) == [output]


def test_traffic_may_switch(tmp_path: Path) -> None:
    """With the window that is named, and not before."""
    for name, switch in (("a.npz", ()), ("b.npz", ("--switch-at", "2"))):
        run("--preset", "glm52", *SMALL, *switch, "--output", tmp_path / name)
    usual, switched = (read_trace(tmp_path / name) for name in ("a.npz", "b.npz"))

    assert [bool((a == b).all()) for a, b in zip(usual, switched, strict=True)] == [
        True,
        True,
        False,
    ]


def test_a_trace_too_large_is_one_line(tmp_path: Path) -> None:
    """The product is named, and nothing is left behind."""
    result = run("--preset", "dsv3", "--windows", "10000", "--output", tmp_path / "trace.npz")

    assert result.exit_code == 1
    assert f"got {10000 * 16 * 58 * 256}" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not [*tmp_path.iterdir()]


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """It is named."""
    output = tmp_path / "nowhere" / "trace.npz"
    result = run("--preset", "dsv3", *SMALL, "--output", output)

    assert result.exit_code == 1
    assert str(output) in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--switch-at", "3"),
        ("--samples", "257"),
        ("--windows", "0"),
        ("--output", "trace.json"),
        ("--preset", "gpt"),
    ],
)
def test_a_slip_is_a_usage_error(tmp_path: Path, option: str, value: str) -> None:
    """Exit code 2, with the option's name."""
    options = {"--preset": "dsv3", "--windows": "3", "--output": str(tmp_path / "trace.npz")}
    result = run(*(part for pair in (options | {option: value}).items() for part in pair))

    assert result.exit_code == 2
    assert option in result.stderr
