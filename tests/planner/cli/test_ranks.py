"""Lost and slow ranks on the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner, Result

from expertplane_planner.cli import plan


if TYPE_CHECKING:
    from pathlib import Path


MACHINE = ("--ranks", "8", "--nodes", "2", "--slots", "16", "--expert-groups", "4")


def run(*arguments: str | Path) -> Result:
    """Runs the command."""
    return CliRunner().invoke(plan, [str(argument) for argument in arguments])


def test_a_lost_rank_gets_nothing(load: Path, tmp_path: Path) -> None:
    """Slots 4 and 5 of rank 2 are empty, in the file and in the figures; the report says why."""
    output, report = tmp_path / "plan.npz", tmp_path / "report.json"
    result = run(
        *(load, *MACHINE, "--masked-ranks", "2", "--output", output, "--report", report),
    )

    assert result.exit_code == 0, result.output
    phy2log = np.load(output)["phy2log"]
    assert (np.argwhere((phy2log == -1).all(axis=0)).ravel() == [4, 5]).all()
    assert (phy2log == -1).sum() == 2 * len(phy2log)
    found = json.loads(report.read_text())
    assert (found["masked_ranks"], found["mode"], found["duplicates"]) == ([2], "global", 0)


def test_a_slow_rank_gets_less(load: Path, tmp_path: Path) -> None:
    """Only `robust` can plan for it, and does; others say so."""
    capacities = ("--rank-capacities", "1,1,1,1,1,1,1,0.5")
    slow = run(load, *MACHINE, *capacities, "--mode", "global", "--policy", "robust")
    refused = run(load, *MACHINE, *capacities, "--policy", "balanced")

    assert slow.exit_code == 0, slow.output
    assert refused.exit_code == 1
    assert "Expected equal capacities of all active ranks" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--masked-ranks", "8"), "Expected masked ranks in [0, 7], got 8."),
        (("--masked-ranks", "0,1,2"), "got 10 slots and 12 experts"),
        (("--rank-capacities", "1"), "Expected a capacity for each of 8 ranks, got 1."),
        (("--masked-ranks", "1", "--mode", "hierarchical"), "equally many active ranks"),
    ],
)
def test_ranks_that_cannot_be_are_refused(
    load: Path, arguments: tuple[str, ...], message: str
) -> None:
    """The planner's sentence goes to stderr."""
    result = run(load, *MACHINE, *arguments)

    assert result.exit_code == 1
    assert message in result.stderr


def test_an_engine_that_wants_every_slot_filled_is_not_given_a_hole(load: Path) -> None:
    """There is no way to say in vLLM's file that a rank is lost."""
    layers = ("--layer-ids", "1-2")
    result = run(load, *MACHINE, *layers, "--masked-ranks", "2", "--engine", "vllm")

    assert result.exit_code == 1
    assert "plan for the ranks that are left" in result.stderr


def test_a_rank_is_lost_and_comes_back(load: Path, tmp_path: Path) -> None:
    """Each plan starts from the one before, whichever ranks that was for; few slots move."""
    first, second, third = (tmp_path / f"{number}.npz" for number in (1, 2, 3))
    arguments = (load, "--ranks", "8", "--slots", "24", "--policy", "robust", "--layer-ids", "1-2")
    lost = ("--masked-ranks", "2")
    results = [
        run(*arguments, "--output", first),
        run(*arguments, *lost, "--incumbent", first, "--move-budget", "6", "--output", second),
        run(*arguments, "--incumbent", second, "--output", third),
    ]

    assert [result.exit_code for result in results] == [0, 0, 0], results[-1].output
    maps = [np.load(path)["phy2log"] for path in (first, second, third)]
    assert [(each < 0).any(axis=0).nonzero()[0].tolist() for each in maps] == [[], [6, 7, 8], []]
    assert ((maps[1] != maps[0]) & (maps[1] >= 0)).sum(axis=1).max() <= 6
