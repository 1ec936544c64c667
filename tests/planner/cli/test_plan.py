"""`expertplane plan`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from expertplane_client.console import foreign_replicas
from expertplane_planner import ExpertLoad, Topology, digest_phy2log, solve
from expertplane_planner.cli import compare, plan
from tests.support.builders import README_PHY2LOG, README_WEIGHT


if TYPE_CHECKING:
    from pathlib import Path


MACHINE = ("--ranks", "8", "--nodes", "2", "--slots", "16", "--expert-groups", "4")


def run(*arguments: str | Path) -> Result:
    """Runs the command."""
    return CliRunner().invoke(plan, [str(argument) for argument in arguments])


def test_the_readme_example_of_deepseek(load: Path, tmp_path: Path) -> None:
    """The command writes the placement that DeepSeek's README prints."""
    output = tmp_path / "plan.npz"
    result = run(load, *MACHINE, "--layer-ids", "1-2", "--policy", "deepseek", "--output", output)

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
    arguments = (load, *MACHINE, "--layer-ids", "1-2", "--policy", "deepseek")
    assert run(*arguments, "--report", report).exit_code == 0
    found = json.loads(report.read_text())
    solved = solve(
        ExpertLoad.from_weight(torch.tensor(README_WEIGHT)),
        Topology(num_nodes=2, num_ranks=8, num_slots=16),
        num_expert_groups=4,
        policy="deepseek",
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
    result = run(load, *MACHINE, "--mode", "global", "--policy", "deepseek")

    assert result.exit_code == 0, result.output
    assert "deepseek, global" in result.stdout
    assert "duplicates on a rank" in result.stdout
    assert "foreign" not in result.stdout
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
        ((*MACHINE, "--spill", "1"), "--mode soft-hierarchical"),
        ((*MACHINE, "--mode", "global", "--spill", "0"), "--mode soft-hierarchical"),
        ((*MACHINE, "--mode", "soft-hierarchical"), "--spill"),
        (
            ("--ranks", "8", "--slots", "16", "--mode", "soft-hierarchical", "--spill", "1"),
            "--nodes of at least 2",
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


def test_an_output_format_needs_an_output(load: Path, tmp_path: Path) -> None:
    """A format for nothing is refused, and not even the report is written."""
    report = tmp_path / "report.json"
    result = run(load, *MACHINE, "--output-format", "npz", "--report", report)

    assert result.exit_code == 1
    assert result.stderr == "Error: Expected --output with --output-format, got none.\n"
    assert not report.exists()


@pytest.mark.parametrize(
    "option", ["--engine", "--input-format", "--output-format", "--mode", "--layer-ids"]
)
def test_a_slip_is_a_usage_error(load: Path, option: str) -> None:
    """A name that does not exist ends with exit code 2."""
    assert run(load, *MACHINE, option, "nothing").exit_code == 2


def test_soft_mode_tells_the_foreign_replicas(load: Path, tmp_path: Path) -> None:
    """With spill some replicas leave their node, no more than it allows, and the balance gains.

    `compute-plan` counts them without the planning library and finds the same.
    """
    reports = []
    for spill in (0, 2):
        report, output = tmp_path / f"{spill}.json", tmp_path / f"{spill}.npz"
        result = run(
            *(load, *MACHINE, "--layer-ids", "1-2", "--mode", "soft-hierarchical"),
            *("--spill", str(spill), "--policy", "balanced"),
            *("--report", report, "--output", output),
        )
        assert result.exit_code == 0, result.output
        assert "foreign replicas" in result.stdout
        reports.append(json.loads(report.read_text()))
        assert reports[-1]["foreign_replicas"] == list(
            foreign_replicas(
                np.load(output)["phy2log"],
                num_logical_experts=12,
                num_expert_groups=4,
                num_nodes=2,
            )
        )
    without, with_spill = reports

    assert (without["foreign_replicas"], without["spill"]) == ([0, 0], 0)
    assert 0 < max(with_spill["foreign_replicas"]) <= 2
    assert with_spill["spill"] == 2
    assert with_spill["balancedness"] > without["balancedness"]


def test_an_engine_checks_before_anything_is_written(tmp_path: Path) -> None:
    """Two replicas of an expert on a rank, which vLLM-Ascend refuses, end with one line."""
    load, output, report = (tmp_path / name for name in ("load.npz", "map.json", "plan.json"))
    np.savez(load, weight=np.array([[90, 1]]))
    arguments = (load, "--ranks", "1", "--slots", "3", "--output", output, "--report", report)

    refused = run(*arguments, "--engine", "ascend")
    assert refused.exit_code == 1
    assert "vLLM-Ascend" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert not output.exists()
    assert not report.exists()
    assert run(*arguments, "--output-format", "json").exit_code == 0
    assert json.loads(report.read_text())["duplicates"] == 1


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("map.json", ("--engine", "vllm"), "the format vllm"),
        ("map.npz", ("--output-format", "json"), "ends in .json for the format json"),
        ("map.json", ("--engine", "sglang", "--output-format", "npz"), "for the format npz"),
        ("map.json", (), "which format"),
        ("map.txt", (), "map.txt"),
    ],
)
def test_a_name_of_another_format_is_refused_at_once(
    tmp_path: Path, name: str, arguments: tuple[str, ...], message: str
) -> None:
    """What could not be written after a solve is refused before even the load is read."""
    missing, output = tmp_path / "missing.npz", tmp_path / name
    result = run(missing, *MACHINE, "--output", output, *arguments)

    assert result.exit_code == 1
    assert message in result.stderr
    assert name in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_engine_chooses_the_format(load: Path, tmp_path: Path) -> None:
    """The engine's own format is written unless another is asked for."""
    written = {}
    for name, arguments in {
        "engine": ("--engine", "sglang"),
        "own format": ("--output-format", "sglang"),
        "both": ("--engine", "sglang", "--output-format", "json"),
        "other format": ("--output-format", "json"),
    }.items():
        output = tmp_path / f"{name}.json"
        result = run(load, *MACHINE, "--layer-ids", "1-2", "--output", output, *arguments)
        assert result.exit_code == 0, result.output
        written[name] = output.read_bytes()

    assert written["engine"] == written["own format"]
    assert written["both"] == written["other format"]
    assert written["engine"] != written["both"]


def test_the_input_format_is_what_is_said(load: Path) -> None:
    """A file that is not what it is said to be is refused by name."""
    assert run(load, *MACHINE, "--input-format", "npz").exit_code == 0
    result = run(load, *MACHINE, "--input-format", "sglang-json")

    assert result.exit_code == 1
    assert "load.npz" in result.stderr


@pytest.mark.parametrize(
    ("output", "report", "message"),
    [
        ("plan.npz", "report.txt", "ends in .json"),
        ("plan.npz", "nowhere/report.json", "nowhere/report.json"),
        ("nowhere/plan.npz", "report.json", "nowhere/plan.npz"),
        ("plan.json", "plan.json", "two files"),
        ("plan.json", "../{folder}/plan.json", "two files"),
    ],
)
def test_both_outputs_are_checked_before_anything_is_written(
    load: Path, tmp_path: Path, solves: list[int], output: str, report: str, message: str
) -> None:
    """What would leave one file without the other is refused before a solve, in one line."""
    before = set(tmp_path.iterdir())
    result = run(
        *(load, *MACHINE, "--output", tmp_path / output, "--output-format"),
        *("json" if output.endswith("json") else "npz", "--report"),
        tmp_path / report.format(folder=tmp_path.name),
    )

    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert set(tmp_path.iterdir()) == before
    assert solves == []


def test_what_is_written_is_told_at_once(load: Path, tmp_path: Path) -> None:
    """A report that cannot be written does not hide that the placement was."""
    output, report = tmp_path / "plan.npz", tmp_path / "report.json"
    (tmp_path / "report.json.tmp").mkdir()  # where the report is written first
    result = run(load, *MACHINE, "--output", output, "--report", report)

    assert result.exit_code == 1
    assert result.stdout == f"wrote {output}\n"
    assert "report.json" in result.stderr
    assert output.exists()


@pytest.mark.parametrize(
    ("document", "arguments", "message"),
    [
        ("hidden", ("--engine", "vllm"), "such as --layer-ids 1-2"),
        ("hidden", ("--engine", "ascend"), "such as --layer-ids 1-2"),
        ("moe", ("--engine", "sglang"), "Expected --layer-ids for SGLang"),
        ("moe", ("--engine", "trtllm"), "Expected --layer-ids for TensorRT-LLM"),
        ("moe", ("--engine", "sglang", "--layer-ids", "3-4"), "such as --hidden-layers 5"),
        (
            "moe",
            ("--engine", "sglang", "--layer-ids", "3-4", "--hidden-layers", "4"),
            "Expected --hidden-layers above 4",
        ),
        ("moe", ("--output-format", "hygon"), "Expected --model-class"),
        ("moe", ("--engine", "vllm", "--model-class", "A"), "--model-class only"),
        ("moe", ("--engine", "vllm", "--hidden-layers", "9"), "--hidden-layers only"),
    ],
)
def test_what_the_file_does_not_say_is_asked_for_before_a_solve(
    tmp_path: Path,
    solves: list[int],
    document: str,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    """Layers are never guessed: one line says what to type, and nothing is computed or written."""
    load = layers_of(tmp_path, document)
    suffix = {"vllm": ".pt", "trtllm": ".yaml"}.get(arguments[1], ".json")
    output = tmp_path / f"plan{suffix}"
    result = run(load, *MACHINE, "--output", output, *arguments)

    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not output.exists()
    assert solves == []


def test_the_hidden_layers_are_what_is_said(tmp_path: Path) -> None:
    """VLLM's rows go to the layers named, of as many as named; by default as the file says."""
    rows = {}
    for document, arguments in {
        "moe": ("--layer-ids", "1-2", "--hidden-layers", "4"),
        "hidden": ("--layer-ids", "1-2"),
    }.items():
        output = tmp_path / f"{document}_plan.json"
        load = layers_of(tmp_path, document)
        result = run(load, *MACHINE, "--engine", "sglang", "--output", output, *arguments)
        assert result.exit_code == 0, result.output
        rows[document] = json.loads(output.read_text())["physical_to_logical_map"]

    assert (len(rows["moe"]), len(rows["hidden"])) == (4, 3)
    assert rows["moe"][:3] == rows["hidden"]
    assert rows["moe"][3] == rows["moe"][0]


def test_hygons_file_has_the_class_that_is_said(tmp_path: Path) -> None:
    """The engine looks the map up by it; `compare` finds it again."""
    load, output = layers_of(tmp_path, "moe"), tmp_path / "map.json"
    arguments = ("--output", output, "--output-format", "hygon")
    result = run(load, *MACHINE, *arguments, "--model-class", "Qwen3MoeForCausalLM")
    assert result.exit_code == 0, result.output
    assert list(json.loads(output.read_text())["model_maps"]) == ["Qwen3MoeForCausalLM"]

    for model_class, exit_code in {"Qwen3MoeForCausalLM": 0, "Other": 1}.items():
        incumbent = ("--incumbent", str(output), "--model-class", model_class)
        policy = ("--policy", "deepseek")
        found = CliRunner().invoke(compare, [str(load), *MACHINE, *policy, *incumbent])
        assert found.exit_code == exit_code, found.output
    alone = CliRunner().invoke(compare, [str(load), *MACHINE, "--model-class", "Other"])
    assert alone.stderr == "Error: Expected --incumbent with --model-class Other, got none.\n"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("--model-class", "A", "--output"), ("--hidden-layers", "4", "--output or --engine")],
)
def test_settings_of_a_file_need_one(load: Path, option: str, value: str, message: str) -> None:
    """Without a file they would do nothing."""
    result = run(load, *MACHINE, option, value)

    assert result.exit_code == 1
    assert f"Expected {message} with {option}, got" in result.stderr


def layers_of(folder: Path, name: str) -> Path:
    """Writes DeepSeek's example with a row per hidden layer, the first dense, or per MoE layer."""
    path = folder / f"{name}.json"
    document = {
        "hidden": {"logical_count": [[0] * 12, *README_WEIGHT]},
        "moe": {"load_history": [{"logical_expert_load": README_WEIGHT}]},
    }[name]
    path.write_text(json.dumps(document))
    return path
