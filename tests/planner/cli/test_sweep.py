"""`expertplane sweep`."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from expertplane_planner.cli import sweep


if TYPE_CHECKING:
    from pathlib import Path


MACHINE = ("--ranks", "8", "--nodes", "2", "--expert-groups", "4")
SOFT = (*MACHINE, "--mode", "soft-hierarchical")
TWO_NODES = (
    *("--ranks", "4", "--nodes", "2", "--expert-groups", "2"),
    *("--mode", "soft-hierarchical", "--policy", "balanced"),
)
PNG = b"\x89PNG\r\n\x1a\n"


def run(*arguments: str | Path) -> Result:
    """Runs the command."""
    return CliRunner().invoke(sweep, [str(argument) for argument in arguments])


@pytest.fixture
def uneven(tmp_path: Path) -> Path:
    """Returns a load of two layers of two experts, one of which has all the tokens."""
    path = tmp_path / "uneven.npz"
    np.savez(path, weight=np.array([[12, 0], [0, 12]]))
    return path


@pytest.fixture
def hot_group(tmp_path: Path) -> Path:
    """Returns a load of one layer whose first four experts have all the tokens."""
    path = tmp_path / "hot_group.npz"
    np.savez(path, weight=np.array([[6, 6, 6, 6, 0, 0, 0, 0]]))
    return path


def document(*arguments: str | Path) -> Any:
    """Returns what the command prints for machines."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_step_time_is_that_of_the_slowest_rank(uneven: Path) -> None:
    """12 and 0 tokens on two ranks, the second half as fast, and a third that is lost.

    One slot each: the first rank has all 12. Two each, and no expert twice on a rank: both have
    6, which count 12 on the second. So the balance gets better, and the time does not.
    """
    found = document(
        *(uneven, "--ranks", "3", "--redundancy", "1,4", "--policy", "robust"),
        *("--masked-ranks", "2", "--rank-capacities", "1,0.5,1"),
    )

    assert [row["relative_step_time"] for row in found["rows"]] == [1.0, 1.0]
    assert [row["balancedness"] for row in found["rows"]] == [6 / 12, 9 / 12]
    assert [row["extra_slots_per_rank"] for row in found["rows"]] == [0.0, 1.0]


def test_redundancy_is_weighed_against_memory(uneven: Path) -> None:
    """Twice as many replicas of the one busy expert do not halve the load of the busiest rank.

    Two ranks, 12 tokens: one slot each leaves all of them on one rank. Four slots hold three
    replicas of 4 tokens, so that one rank has two of them; eight slots hold seven of 12/7 tokens,
    four of them on one rank. So the busiest rank has 12, 8 and 48/7 tokens, the mean is 6.
    """
    found = document(
        *(uneven, "--ranks", "2", "--redundancy", "0,2,6", "--policy", "deepseek"),
        *("--bytes-per-expert", "1000"),
    )
    first, second, third = found["rows"]

    assert found["policy"] == "deepseek"
    assert (found["num_layers"], found["num_logical_experts"], found["num_ranks"]) == (2, 2, 2)
    assert [row["redundancy"] for row in found["rows"]] == [0, 2, 6]
    assert [row["num_slots"] for row in found["rows"]] == [2, 4, 8]
    assert [row["slots_per_rank"] for row in found["rows"]] == [1, 2, 4]
    assert [row["balancedness"] for row in found["rows"]] == pytest.approx([1 / 2, 3 / 4, 7 / 8])
    assert [row["minimum"] for row in found["rows"]] == pytest.approx([1 / 2, 3 / 4, 7 / 8])
    assert [row["relative_step_time"] for row in found["rows"]] == pytest.approx(
        [1.0, 2 / 3, 4 / 7]
    )
    assert first["marginal_gain"] is None
    assert second["marginal_gain"] == pytest.approx(1 / 3)
    assert third["marginal_gain"] == pytest.approx((2 / 3 - 4 / 7) / 2)
    assert [row["extra_slots_per_rank"] for row in found["rows"]] == [0, 1, 3]
    assert [row["extra_bytes_per_rank"] for row in found["rows"]] == [0, 2000, 6000]
    assert all(row["seconds"] > 0 for row in found["rows"])


def test_the_gain_is_per_slot_of_a_rank(uneven: Path) -> None:
    """Three more slots a rank save 3/7 together, 1/7 each.

    The first row given is what the others are relative to.
    """
    rows = document(uneven, "--ranks", "2", "--redundancy", "0,6", "--policy", "deepseek")["rows"]

    assert rows[1]["marginal_gain"] == pytest.approx(1 / 7)
    assert rows[1]["extra_bytes_per_rank"] is None
    (only,) = document(uneven, "--ranks", "2", "--redundancy", "6")["rows"]
    assert only["relative_step_time"] == 1.0


def test_the_table_is_for_people(load: Path) -> None:
    """A row per redundancy; memory only when the size of an expert is known."""
    arguments = (load, *MACHINE, "--redundancy", "4,12", "--policy", "balanced")
    plain, with_bytes = run(*arguments), run(*arguments, "--bytes-per-expert", "44000000")

    assert plain.exit_code == 0, plain.output
    assert "balanced, hierarchical, 3 layers x 12 experts on 8 ranks" in plain.stdout
    rows = [line.split("│") for line in plain.stdout.splitlines() if line.startswith("│")]
    assert [(row[1].strip(), row[2].strip()) for row in rows] == [("4", "16"), ("12", "24")]
    assert "GB" not in plain.stdout
    # 12 / 8 slots of 3 layers of 44 MB.
    assert "0.20" in with_bytes.stdout


@pytest.mark.parametrize(
    ("redundancy", "nearest"), [("0", "nearest: 4"), ("4,10", "nearest: 4 and 12")]
)
def test_a_redundancy_that_does_not_divide_names_the_nearest(
    load: Path, redundancy: str, nearest: str
) -> None:
    """12 experts and 4 or 12 redundant ones divide over 8 ranks; nothing is solved before."""
    result = run(load, *MACHINE, "--redundancy", redundancy)

    assert result.exit_code == 1
    assert nearest in result.stderr
    assert f"got {redundancy.split(',')[-1]};" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


@pytest.mark.parametrize("numbers", ["", "a", "8,4", "4,4", "-4", "4,,12", "1.5"])
@pytest.mark.parametrize("option", ["--redundancy", "--spill"])
def test_a_slip_in_a_list_is_a_usage_error(load: Path, option: str, numbers: str) -> None:
    """Redundancies and spills are ascending whole numbers."""
    lists = {"--redundancy": "4", "--spill": "1"} | {option: numbers}
    result = run(load, *SOFT, *(part for pair in lists.items() for part in pair))

    assert result.exit_code == 2
    assert option in result.stderr


def test_foreign_replicas_are_weighed_as_well(hot_group: Path) -> None:
    """Spill is tried with every redundancy, and each gain is that of one step of one of the two.

    Four experts of a group each on two nodes of two ranks; the first group has all 24 tokens, so
    that its node's ranks have 12 each while nothing may leave, and the mean is 6. With 6 slots a
    node the other node has but 2 to spare for the experts of this one, whatever is allowed.
    """
    found = document(hot_group, *TWO_NODES, "--redundancy", "4,8", "--spill", "0,1,3")
    rows = found["rows"]

    assert [(row["redundancy"], row["spill"]) for row in rows] == [
        *((4, 0), (4, 1), (4, 3)),
        *((8, 0), (8, 1), (8, 3)),
    ]
    assert all(row["mode"] == "soft-hierarchical" for row in rows)
    assert [row["foreign_replicas"] for row in rows if row["spill"] == 0] == [0, 0]
    assert all(0 < row["foreign_replicas"] <= row["spill"] for row in rows if row["spill"])
    assert rows[2]["foreign_replicas"] == 2
    assert [row["balancedness"] for row in rows if row["spill"] == 0] == pytest.approx([0.5, 0.5])
    time = {(row["redundancy"], row["spill"]): row["relative_step_time"] for row in rows}
    assert time[4, 0] == 1.0
    assert time[4, 3] < 1.0
    assert time[8, 3] < time[8, 1] < 1.0
    assert all(
        row["relative_step_time"] == pytest.approx(0.5 / row["balancedness"]) for row in rows
    )
    # One slot a rank more in the second half; spill grows by 1, then by 2.
    assert [row["marginal_gain"] for row in rows] == [
        *(None, None, None),
        *(pytest.approx(time[4, spill] - time[8, spill]) for spill in (0, 1, 3)),
    ]
    assert [row["marginal_gain_per_foreign"] for row in rows] == [
        gain
        for redundancy in (4, 8)
        for gain in (
            None,
            pytest.approx(time[redundancy, 0] - time[redundancy, 1]),
            pytest.approx((time[redundancy, 1] - time[redundancy, 3]) / 2),
        )
    ]


def test_spill_has_its_columns_in_soft_mode_only(load: Path) -> None:
    """A column for what may leave, one for what left; gains where there is a step to gain by."""

    def columns(*arguments: str) -> list[str]:
        result = run(load, *MACHINE, *arguments)
        assert result.exit_code == 0, result.output
        (head,) = (line for line in result.stdout.splitlines() if "redundancy" in line)
        return [name.strip() for name in head.strip("┃").split("┃")]

    soft = ("--mode", "soft-hierarchical")
    start, figures = ["redundancy", "spill", "foreign"], ["slots", "per rank", "extra"]
    balance = ["balancedness", "worst layer", "step time"]
    assert columns("--redundancy", "4,12") == [
        *("redundancy", *figures, *balance),
        "gain per extra",
    ]
    assert columns("--redundancy", "4,12", *soft, "--spill", "2") == [
        *(*start, *figures, *balance),
        "gain per extra",
    ]
    assert columns("--redundancy", "4", *soft, "--spill", "0,2") == [
        *(*start, *figures, *balance),
        "gain per foreign",
    ]
    assert columns("--redundancy", "4,12", *soft, "--spill", "0,2") == [
        *(*start, *figures, *balance),
        *("gain per extra", "gain per foreign"),
    ]


def test_without_soft_mode_there_is_no_spill(load: Path) -> None:
    """The keys are there all the same; a spill given in vain is refused in one line."""
    (row,) = document(load, *MACHINE, "--redundancy", "4")["rows"]
    assert (row["spill"], row["foreign_replicas"]) == (None, None)
    assert row["marginal_gain_per_foreign"] is None
    refused = run(load, *MACHINE, "--redundancy", "4", "--spill", "0,2")

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "--mode soft-hierarchical" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_a_policy_that_fails_is_one_line(load: Path) -> None:
    """There is nothing to compare without it."""
    result = run(load, *MACHINE, "--redundancy", "4", "--policy", "nothing")

    assert result.exit_code == 1
    assert "'nothing'" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("spill", [(), ("--spill", "0"), ("--spill", "0,1,2,50")])
@pytest.mark.parametrize("redundancy", ["4", "4,12,20,500"])
def test_a_picture_is_drawn(
    load: Path, tmp_path: Path, redundancy: str, spill: tuple[str, ...]
) -> None:
    """--plot writes a PNG, of a single row too."""
    picture = tmp_path / "picture.png"
    machine = SOFT if spill else MACHINE
    result = run(load, *machine, "--redundancy", redundancy, *spill, "--plot", picture)

    assert result.exit_code == 0, result.output
    assert picture.read_bytes().startswith(PNG)


def test_without_matplotlib_nothing_is_solved(
    load: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says which extra brings it, with exit code 2."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name == "matplotlib" else find_spec(name, *more),
    )
    result = run(load, *MACHINE, "--redundancy", "4", "--plot", tmp_path / "picture.png")

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "`expertplane sweep --plot` needs: pip install 'expertplane[plots]'\n"
