"""What the offline commands have in common."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from expertplane_client.console.problems import MAX_SAMPLES
from expertplane_client.formats import read_load, write_load
from expertplane_planner import cli
from expertplane_planner.model import load as planner_load
from expertplane_planner.policies import DEFAULT_POLICY


if TYPE_CHECKING:
    from pathlib import Path

    import click


COMMANDS = ("compare", "plan", "sweep")
MACHINE = ("--ranks", "8", "--nodes", "2", "--expert-groups", "4")


def run(command: click.Command, *arguments: str | Path) -> Result:
    """Runs a command."""
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.mark.parametrize("name", COMMANDS)
def test_help_does_not_wait_for_torch(name: str) -> None:
    """Whoever asks for help does not pay for what only a solve needs."""
    program = (
        "import sys\n"
        "from expertplane_client.commands import program\n"
        f"program(['{name}', '--help'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules\n"
        "assert 'matplotlib' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )

    assert "LOADFILE" in done.stdout


def figures(document: Any) -> Any:
    """Returns a document without what differs from run to run."""
    if isinstance(document, dict):
        return {key: figures(value) for key, value in document.items() if key != "seconds"}
    return [figures(value) for value in document] if isinstance(document, list) else document


@pytest.mark.parametrize("input_format", [(), ("--input-format", "trtllm")], ids=["found", "said"])
def test_a_load_may_be_a_folder(load: Path, tmp_path: Path, input_format: tuple[str, ...]) -> None:
    """TensorRT-LLM's folder of statistics is planned for like the file that it was made from."""
    folder = tmp_path / "statistics"
    write_load(folder, read_load(load), output_format="trtllm")
    report = tmp_path / "report.json"
    loads: tuple[tuple[str | Path, ...], ...] = ((load,), (folder, *input_format))
    found = []
    for arguments in loads:
        compared = run(cli.compare, *arguments, *MACHINE, "--slots", "16", "--json")
        swept = run(cli.sweep, *arguments, *MACHINE, "--redundancy", "4,12", "--json")
        planned = run(cli.plan, *arguments, *MACHINE, "--slots", "16", "--report", report)
        assert [done.exit_code for done in (compared, swept, planned)] == [0, 0, 0]
        texts = (compared.stdout, swept.stdout, report.read_text())
        found.append([figures(json.loads(text)) for text in texts])

    assert found[0] == found[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_of_something_else_is_one_line(tmp_path: Path, name: str) -> None:
    """A folder that no engine wrote is told by its name."""
    (tmp_path / "holiday.txt").touch()
    size = ("--redundancy", "4") if name == "sweep" else ("--slots", "16")
    result = run(getattr(cli, name), tmp_path, *MACHINE, *size)

    assert result.exit_code == 1
    assert str(tmp_path) in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_more_samples_than_a_planner_takes_are_summed(tmp_path: Path, name: str) -> None:
    """257 samples become 129 of two neighbours and a last one alone; the plan is for the total."""
    samples = np.random.default_rng(0).integers(0, 100, size=(257, 2, 12))
    np.savez(tmp_path / "many.npz", samples=samples)
    np.savez(tmp_path / "one.npz", weight=samples.sum(axis=0))
    size = ("--redundancy", "4") if name == "sweep" else ("--slots", "16")
    report = tmp_path / "report.json"
    printed = ("--policy", "hybrid", *(("--report", report) if name == "plan" else ("--json",)))
    results, found = [], []
    for file in ("many.npz", "one.npz"):
        results.append(run(getattr(cli, name), tmp_path / file, *MACHINE, *size, *printed))
        text = report.read_text() if name == "plan" else results[-1].stdout
        found.append(figures(json.loads(text)))

    assert [result.exit_code for result in results] == [0, 0]
    assert [document.pop("num_samples") for document in found] == [129, 1]
    assert found[0] == found[1]
    assert "257 samples" in results[0].stderr
    assert len(results[0].stderr.splitlines()) == 1 + len(results[1].stderr.splitlines())


def test_as_many_samples_are_kept_as_a_planner_takes() -> None:
    """What the commands sum down to is the planning library's own bound."""
    assert MAX_SAMPLES == planner_load.MAX_SAMPLES


def test_compilation_does_not_pass_for_solving(load: Path, solves: list[int]) -> None:
    """A layer is solved before the first solve that is timed, in `plan` and in `sweep`."""
    assert run(cli.plan, load, *MACHINE, "--slots", "16").exit_code == 0
    assert solves == [1, 3]
    solves.clear()
    assert run(cli.sweep, load, *MACHINE, "--redundancy", "4,12").exit_code == 0
    assert solves == [1, 3, 3]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_name_is_shown_as_it_is(load: Path, tmp_path: Path, name: str, strange: str) -> None:
    """Braces and brackets in the name of somebody's policy mean nothing."""
    size = ("--redundancy", "4") if name == "sweep" else ("--slots", "16")
    plot = () if name == "plan" else ("--plot", tmp_path / "picture.png")
    result = run(getattr(cli, name), load, *MACHINE, *size, "--policy", strange, *plot)

    assert result.exit_code == 0, result.output
    assert strange in result.stdout


@pytest.mark.parametrize(("name", "policy"), [("plan", DEFAULT_POLICY), ("sweep", "balanced")])
def test_the_default_is_what_the_pages_recommend(load: Path, name: str, policy: str) -> None:
    """Without --policy the plan is the library's default's; in sample it is that of `balanced`."""
    size = ("--redundancy", "4") if name == "sweep" else ("--slots", "16")
    result = run(getattr(cli, name), load, *MACHINE, *size)

    assert DEFAULT_POLICY == "robust"
    assert f"{policy}, hierarchical" in result.stdout
