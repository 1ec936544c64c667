"""`expertplane compare`."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from expertplane_client.formats import PlacementMap, write_placement
from expertplane_planner import ExpertLoad, Mode, Placement, Topology, policy_names, solve
from expertplane_planner.cli import compare
from tests.support.builders import README_PHY2LOG, README_WEIGHT


if TYPE_CHECKING:
    from pathlib import Path


MACHINE = ("--ranks", "8", "--nodes", "2", "--slots", "16", "--expert-groups", "4")
TOPOLOGY = Topology(num_nodes=2, num_ranks=8, num_slots=16)
README = ("--layer-ids", "1-2")
PNG = b"\x89PNG\r\n\x1a\n"


def run(*arguments: str | Path) -> Result:
    """Runs the command."""
    return CliRunner().invoke(compare, [str(argument) for argument in arguments])


def document(*arguments: str | Path) -> Any:
    """Returns what the command prints for machines."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_every_policy_has_a_row_under_the_baseline(load: Path) -> None:
    """Without --policy all are compared, in the registry's order, after what needs no load."""
    result = run(load, *MACHINE)

    assert result.exit_code == 0, result.output
    rows = [line.split()[1] for line in result.stdout.splitlines() if line.startswith("│")]
    assert rows == ["initial", *policy_names()]
    assert "moved" not in result.stdout


def test_the_figures_are_those_of_the_plans(load: Path) -> None:
    """JSON holds the sizes, and under a policy's name what the library says about its plan."""
    found = document(load, *MACHINE, *README, "--policy", "deepseek", "--repeat", "3")
    plan = solve(
        ExpertLoad.from_weight(torch.tensor(README_WEIGHT)),
        TOPOLOGY,
        num_expert_groups=4,
        policy="deepseek",
    )

    assert {
        "num_layers": 2,
        "num_logical_experts": 12,
        "num_expert_groups": 4,
        "num_nodes": 2,
        "num_ranks": 8,
        "num_slots": 16,
        "layer_ids": [1, 2],
        "seed": 0,
        "repeat": 3,
    }.items() <= found.items()
    assert list(found["policies"]) == ["deepseek"]
    deepseek = found["policies"]["deepseek"]
    assert deepseek.pop("seconds") > 0
    assert deepseek == {
        "balancedness": plan.balance.balancedness,
        "mean": plan.balance.mean,
        "minimum": plan.balance.minimum,
        "per_layer": list(plan.balance.per_layer),
        "duplicates": int(plan.placement.num_duplicates().sum()),
        "mode": "hierarchical",
        "moved_slots": None,
        "moved_slots_per_layer": None,
        "foreign_replicas": None,
    }


def test_the_baseline_needs_no_load(load: Path) -> None:
    """Without an incumbent, slot p holds expert p mod 12.

    In the README's first layer rank 2 is the busiest then, with experts 4 and 5 and 269 tokens.
    """
    baseline = document(load, *MACHINE, *README, "--policy", "deepseek")["baseline"]

    assert baseline["name"] == "initial"
    assert baseline["duplicates"] == 0
    assert baseline["per_layer"][0] == pytest.approx(sum(README_WEIGHT[0]) / 8 / 269)


@pytest.fixture
def incumbent(tmp_path: Path) -> Path:
    """Returns a file of the placement that DeepSeek's README prints."""
    path = tmp_path / "incumbent.npz"
    write_placement(path, PlacementMap(phy2log=np.array(README_PHY2LOG), num_logical_experts=12))
    return path


def test_moved_slots_are_counted_from_the_incumbent(load: Path, incumbent: Path) -> None:
    """The mode that made the incumbent moves nothing, another moves what the library counts."""
    arguments = (load, *MACHINE, *README, "--incumbent", incumbent, "--policy", "deepseek")
    same = document(*arguments)
    other = document(*arguments, "--mode", "global")["policies"]["deepseek"]
    plan = solve(
        ExpertLoad.from_weight(torch.tensor(README_WEIGHT)),
        TOPOLOGY,
        mode=Mode.GLOBAL,
        policy="deepseek",
    )
    per_layer = plan.placement.moved_slots(Placement(torch.tensor(README_PHY2LOG), 12, TOPOLOGY))

    assert same["baseline"]["name"] == "incumbent"
    assert same["baseline"]["per_layer"] == same["policies"]["deepseek"]["per_layer"]
    assert same["policies"]["deepseek"]["moved_slots"] == 0
    assert other["moved_slots_per_layer"] == per_layer.tolist()
    assert other["moved_slots"] == sum(per_layer.tolist()) > 0
    assert "moved slots" in run(*arguments).stdout


def test_an_incumbent_may_be_from_before_a_rank_was_lost(load: Path, incumbent: Path) -> None:
    """What rank 2 held has to be received by others; the next plan may start from holes."""
    arguments = (load, *MACHINE, "--layer-ids", "1-2", "--policy", "balanced")
    found = document(*arguments, "--masked-ranks", "2", "--incumbent", incumbent)
    again = document(*arguments, "--masked-ranks", "2")

    assert found["masked_ranks"] == [2]
    assert found["policies"]["balanced"]["mode"] == "global"
    assert found["policies"]["balanced"]["moved_slots"] > 0
    assert (
        found["policies"]["balanced"]["per_layer"] == (again["policies"]["balanced"]["per_layer"])
    )


def test_an_incumbent_of_another_shape_is_refused(load: Path, tmp_path: Path) -> None:
    """A placement of other layers or slots is one line that names the file."""
    path = tmp_path / "other.npz"
    write_placement(
        path, PlacementMap(phy2log=np.tile(np.arange(12), (2, 2)), num_logical_experts=12)
    )
    result = run(load, *MACHINE, *README, "--incumbent", path)

    assert result.exit_code == 1
    assert "other.npz" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_a_policy_that_fails_does_not_stop_the_others(load: Path, unlucky: str) -> None:
    """It is shown as failed and told in one line each; the exit code is 1 at the end."""
    policies = ("--policy", "nothing", "--policy", unlucky, "--policy", "deepseek")
    arguments = (load, *MACHINE, *README, *policies)
    table, machines = run(*arguments), run(*arguments, "--json")

    assert (table.exit_code, machines.exit_code) == (1, 1)
    rows = {
        line.split()[1]: line.split()[3]
        for line in table.stdout.splitlines()
        if line.startswith("│")
    }
    assert (rows["nothing"], rows[unlucky]) == ("failed", "failed")
    assert 0 < float(rows["deepseek"]) <= 1
    assert len(table.stderr.splitlines()) == 2
    assert "Error: unlucky: ZeroDivisionError: no luck today" in table.stderr
    found = json.loads(machines.stdout)["policies"]
    assert found[unlucky] == {"error": "ZeroDivisionError: no luck\ntoday"}
    assert "'nothing'" in found["nothing"]["error"]
    assert 0 < found["deepseek"]["balancedness"] <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ranks", "8", "--slots", "15"), "num_slots"),
        (("--ranks", "4", "--slots", "8"), "slot for every logical expert"),
        (("--ranks", "8", "--slots", "16", "--expert-groups", "5"), "num_expert_groups"),
        ((*MACHINE, "--spill", "1"), "--mode soft-hierarchical"),
    ],
)
def test_a_problem_that_nobody_can_solve_is_one_line(
    load: Path, arguments: tuple[str, ...], message: str
) -> None:
    """It is told once and not for every policy."""
    result = run(load, *arguments)

    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_soft_mode_shows_the_foreign_replicas(load: Path) -> None:
    """There is a column of its own, and a number per layer for machines."""
    arguments = (load, *MACHINE, *README, "--mode", "soft-hierarchical", "--spill", "2")
    found = document(*arguments, "--policy", "balanced")

    assert 0 < max(found["policies"]["balanced"]["foreign_replicas"]) <= 2
    assert found["policies"]["balanced"]["mode"] == "soft-hierarchical"
    assert "foreign" in run(*arguments, "--policy", "balanced").stdout


def test_a_picture_is_drawn(load: Path, incumbent: Path, tmp_path: Path) -> None:
    """--plot writes a PNG, of an idle layer and of a single policy too."""
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    both = ("--policy", "deepseek", "--policy", "hybrid")
    result = run(load, *MACHINE, *both, "--plot", first)
    machines = run(
        *(load, *MACHINE, *README, "--incumbent", incumbent, "--plot", second),
        *("--policy", "deepseek", "--json"),
    )

    assert result.exit_code == 0, result.output
    assert f"wrote {first}" in result.stdout
    assert first.read_bytes().startswith(PNG)
    assert second.read_bytes().startswith(PNG)
    assert json.loads(machines.stdout)["policies"]
    assert first.read_bytes() != second.read_bytes()


def test_a_picture_of_failures_is_not_drawn(load: Path, unlucky: str, tmp_path: Path) -> None:
    """Where every policy failed there is nothing to draw."""
    picture = tmp_path / "picture.png"
    result = run(load, *MACHINE, *README, "--policy", unlucky, "--plot", picture)

    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert not picture.exists()


def test_a_picture_is_a_png(load: Path, tmp_path: Path) -> None:
    """Another ending is a usage error."""
    assert run(load, *MACHINE, "--plot", tmp_path / "picture.jpg").exit_code == 2


def test_a_picture_without_its_folder_is_one_line(load: Path, tmp_path: Path) -> None:
    """The table is there all the same."""
    result = run(load, *MACHINE, "--plot", tmp_path / "nowhere" / "picture.png")

    assert result.exit_code == 1
    assert "nowhere" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "deepseek" in result.stdout


def test_without_matplotlib_nothing_is_solved(
    load: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says which extra brings it, before even the load is read; exit code 2."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name == "matplotlib" else find_spec(name, *more),
    )
    missing = tmp_path / "missing.npz"
    result = run(missing, *MACHINE, "--plot", tmp_path / "picture.png")

    assert (result.exit_code, result.stdout) == (2, "")
    assert (
        result.stderr == "`expertplane compare --plot` needs: pip install 'expertplane[plots]'\n"
    )
    assert run(load, *MACHINE, "--policy", "deepseek").exit_code == 0
