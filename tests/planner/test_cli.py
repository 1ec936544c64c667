"""The offline command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from expertplane_planner import ExpertLoad, Topology, digest_phy2log, solve
from expertplane_planner.cli import plan
from tests.support.builders import README_PHY2LOG, README_WEIGHT


if TYPE_CHECKING:
    from pathlib import Path


MACHINE = ("--ranks", "8", "--nodes", "2", "--slots", "16", "--expert-groups", "4")


def run(*arguments: str | Path) -> Result:
    """Runs the command."""
    return CliRunner().invoke(plan, [str(argument) for argument in arguments])


@pytest.fixture
def load(tmp_path: Path) -> Path:
    """Returns the load of DeepSeek's README example, under an empty layer of zeros."""
    path = tmp_path / "load.npz"
    np.savez(path, weight=np.array([[0] * 12, *README_WEIGHT]))
    return path


def test_the_readme_example_of_deepseek(load: Path, tmp_path: Path) -> None:
    """The command writes the placement that DeepSeek's README prints."""
    output = tmp_path / "plan.npz"
    result = run(load, *MACHINE, "--layer-ids", "1-2", "--output", output)

    assert result.exit_code == 0, result.output
    with np.load(output, allow_pickle=False) as maps:
        assert {"phy2log", "log2phy", "logcnt"} == set(maps)
        np.testing.assert_array_equal(README_PHY2LOG, maps["phy2log"])
        assert maps["logcnt"].shape == (2, 12)
        assert (2, 12, maps["logcnt"].max()) == maps["log2phy"].shape
        assert all(maps[name].dtype.kind == "i" for name in maps)


def test_the_report_tells_what_was_done(load: Path, tmp_path: Path) -> None:
    """The report holds the plan's figures, its fingerprint and what it was made from."""
    report = tmp_path / "report.json"
    assert run(load, *MACHINE, "--layer-ids", "1-2", "--report", report).exit_code == 0
    found = json.loads(report.read_text())
    solved = solve(
        ExpertLoad.from_weight(torch.tensor(README_WEIGHT)),
        Topology(num_nodes=2, num_ranks=8, num_slots=16),
        num_expert_groups=4,
    )

    assert {
        "policy": "deepseek",
        "mode": "hierarchical",
        "parameters": {},
        "seed": 0,
        "version": None,
        "sha256": digest_phy2log(torch.tensor(README_PHY2LOG)),
        "balancedness": solved.balance.balancedness,
        "per_layer": list(solved.balance.per_layer),
        "num_layers": 2,
        "num_logical_experts": 12,
        "num_expert_groups": 4,
        "num_nodes": 2,
        "num_ranks": 8,
        "num_slots": 16,
        "layer_ids": [1, 2],
    }.items() <= found.items()
    assert found["seconds"] > 0
    assert found["balancedness_before"] < found["balancedness"]


def test_the_summary_is_for_people(load: Path) -> None:
    """Policy, mode, sizes and balance are printed; no file is needed."""
    result = run(load, *MACHINE, "--mode", "global")

    assert result.exit_code == 0, result.output
    assert "deepseek, global" in result.stdout
    assert "3 layers x 12 experts -> 16 slots on 8 ranks" in result.stdout


def test_every_layer_is_planned_unless_left_out(load: Path, tmp_path: Path) -> None:
    """A layer without load gets a placement like any other."""
    output = tmp_path / "plan.npz"
    assert run(load, *MACHINE, "--output", output).exit_code == 0

    assert np.load(output)["phy2log"].shape == (3, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ranks", "8", "--slots", "15"), "num_slots"),
        (("--ranks", "8", "--slots", "8"), "experts"),
        (("--ranks", "8", "--slots", "16", "--policy", "nothing"), "nothing"),
        (
            ("--ranks", "8", "--nodes", "8", "--slots", "16", "--mode", "hierarchical"),
            "num_expert_groups",
        ),
    ],
)
def test_what_cannot_be_planned_is_one_line(
    load: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    """The planner's sentence goes to stderr with exit code 1, and nothing is written."""
    output = tmp_path / "plan.npz"
    result = run(load, *arguments, "--output", output)

    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not output.exists()


def test_a_bad_recording_is_one_line(tmp_path: Path) -> None:
    """A file that is no recording is told by its name."""
    path = tmp_path / "load.json"
    path.write_text('{"logical_count": [[1, -1]]}')
    result = run(path, *MACHINE)

    assert result.exit_code == 1
    assert "load.json" in result.stderr
