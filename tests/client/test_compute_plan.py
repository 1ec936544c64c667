"""`expertplane compute-plan` against a scripted planner."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from expertplane.v1 import deployment_pb2, plan_service_pb2 as plans_pb2
from expertplane_client import cli
from expertplane_client.formats import PlacementMap, read_load, write_load, write_placement
from expertplane_client.tensors import from_tensor

from . import builders
from .commands import run


if TYPE_CHECKING:
    from pathlib import Path

    from .scripted_planner import ScriptedPlanner


@pytest.fixture
async def asked(planner: ScriptedPlanner) -> list[plans_pb2.ComputePlanRequest]:
    """Returns what the planner is asked for, while it answers with one and the same plan."""
    requests: list[plans_pb2.ComputePlanRequest] = []

    def answer(request: plans_pb2.ComputePlanRequest) -> plans_pb2.ComputePlanResponse:
        requests.append(request)
        return plans_pb2.ComputePlanResponse(plan=builders.plan_message(0, deployment=""))

    planner.answers["ComputePlan"] = answer
    return requests


async def test_a_plan_is_computed_by_a_planner(
    planner: ScriptedPlanner, asked: list[plans_pb2.ComputePlanRequest], tmp_path: Path
) -> None:
    """The outputs are those of the offline command: three maps, and a report about the load."""
    load, output, report = (tmp_path / name for name in ("load.npz", "plan.npz", "report.json"))
    np.savez(load, weight=np.array([[0, 0, 0], [4, 3, 2], [1, 1, 8]]))
    result = await run(
        cli.compute_plan,
        *(str(load), "--ranks", "2", "--slots", "4", "--layer-ids", "1-2", "--mode", "global"),
        *("--seed", "7", "--output", str(output), "--report", str(report)),
        *("--address", planner.address),
    )

    assert result.exit_code == 0, result.output
    assert "2 layers x 3 experts -> 4 slots on 2 ranks" in result.stdout
    found = json.loads(report.read_text())
    assert {
        "policy": "deepseek",
        "mode": "global",
        "seed": 7,
        "version": None,
        "sha256": builders.PINNED_DIGEST,
        "layer_ids": [1, 2],
        "num_ranks": 2,
        "num_slots": 4,
        "seconds": 0.25,
    }.items() <= found.items()
    # Layer 1: ranks carry 2+3 and 2+2. Layer 2: 8+0.5 and 1+0.5.
    assert found["per_layer"] == pytest.approx([4.5 / 5, 5 / 8.5])
    assert found["balancedness"] == pytest.approx(9.5 / 13.5)
    assert {"phy2log", "log2phy", "logcnt"} == set(np.load(output))


async def test_lost_and_slow_ranks_are_passed_on(
    planner: ScriptedPlanner, asked: list[plans_pb2.ComputePlanRequest], tmp_path: Path
) -> None:
    """The planner is told of them, and what it answers is scored by them."""
    load, report = tmp_path / "load.npz", tmp_path / "report.json"
    np.savez(load, weight=np.array([[4, 3, 2], [1, 1, 8]]))
    result = await run(
        cli.compute_plan,
        *(str(load), "--ranks", "4", "--slots", "4", "--masked-ranks", "1"),
        *("--rank-capacities", "1,1,2,0.5", "--report", str(report)),
        *("--address", planner.address),
    )

    assert result.exit_code == 0, result.output
    assert list(asked[0].topology.masked_ranks) == [1]
    assert list(asked[0].topology.rank_capacities) == [1.0, 1.0, 2.0, 0.5]
    found = json.loads(report.read_text())
    assert (found["masked_ranks"], found["rank_capacities"]) == ([1], [1.0, 1.0, 2.0, 0.5])
    # Experts 0, - , 1, 2 before: ranks carry 4, 3/2, 2/0.5 and 1, 1/2, 8/0.5.
    before = (4 + 1.5 + 4) / 3 + (1 + 0.5 + 16) / 3
    assert found["balancedness_before"] == pytest.approx(before / (4 + 16))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--masked-ranks", "4"), "Expected masked ranks in [0, 3], got 4."),
        (("--rank-capacities", "1,2"), "Expected a capacity for each of 4 ranks, got 2."),
        (("--masked-ranks", "2,1"), "Expected ascending numbers"),
        (("--rank-capacities", "1,fast"), "Expected numbers such as '1,1,0.5,1'"),
    ],
)
async def test_impossible_ranks_never_leave(
    planner: ScriptedPlanner,
    asked: list[plans_pb2.ComputePlanRequest],
    tmp_path: Path,
    arguments: tuple[str, str],
    message: str,
) -> None:
    """Whatever the wire could not say, or would say otherwise, is refused here."""
    load = tmp_path / "load.npz"
    np.savez(load, weight=np.array([[4, 3, 2], [1, 1, 8]]))
    result = await run(
        cli.compute_plan,
        *(str(load), "--ranks", "4", "--slots", "4", *arguments, "--address", planner.address),
    )

    assert result.exit_code != 0
    assert message in result.stderr
    assert not asked


async def test_an_incumbent_is_passed_on(
    planner: ScriptedPlanner, asked: list[plans_pb2.ComputePlanRequest], tmp_path: Path
) -> None:
    """Placement in force, budget and parameters are asked for; moved slots are reported."""
    load, report, incumbent = (tmp_path / name for name in ("load.npz", "r.json", "now.npz"))
    np.savez(load, weight=np.array([[4, 3, 2], [1, 1, 8]]))
    now = np.array([[0, 1, 2, 0], [2, 1, 0, 2]])
    write_placement(incumbent, PlacementMap(phy2log=now, num_logical_experts=3, num_ranks=2))
    result = await run(
        cli.compute_plan,
        *(str(load), "--ranks", "2", "--slots", "4", "--report", str(report)),
        *("--incumbent", str(incumbent), "--move-budget", "0"),
        *("--parameter", "risk=1.5", "--parameter", 'kind="a=b"'),
        *("--address", planner.address),
    )

    assert result.exit_code == 0, result.output
    (request,) = asked
    sent = from_tensor(request.incumbent_phy2log, field="incumbent", max_shape=(9, 9))
    np.testing.assert_array_equal(sent, now)
    assert request.policy.max_moved_slots_per_layer == 0
    assert request.policy.parameters == {"risk": "1.5", "kind": '"a=b"'}
    assert "moved slots" in result.stdout
    assert json.loads(report.read_text())["moved_slots"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--move-budget", "1"), "Expected --incumbent with --move-budget, got none."),
        (("--parameter", "risk"), "Expected NAME=VALUE, got 'risk'."),
        (("--parameter", "=1"), "Expected NAME=VALUE, got '=1'."),
        (("--parameter", "a=1", "--parameter", "a=2"), "Expected a once, got it twice."),
        (("--incumbent", "{folder}/none.npz"), "none.npz"),
        (("--incumbent", "{folder}/other.npz"), "to place 2 layers on 4 slots"),
    ],
)
async def test_impossible_moves_never_leave(
    planner: ScriptedPlanner,
    asked: list[plans_pb2.ComputePlanRequest],
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    """What cannot be meant is refused in one line, and no planner is asked."""
    load, other = tmp_path / "load.npz", tmp_path / "other.npz"
    np.savez(load, weight=np.array([[4, 3, 2], [1, 1, 8]]))
    wider = np.array([[0, 1, 2, 0, 1, 2]] * 2)
    write_placement(other, PlacementMap(phy2log=wider, num_logical_experts=3, num_ranks=2))
    result = await run(
        cli.compute_plan,
        *(str(load), "--ranks", "2", "--slots", "4", "--address", planner.address),
        *(argument.format(folder=tmp_path) for argument in arguments),
    )

    assert result.exit_code != 0
    assert message in result.stderr
    assert not asked


async def test_soft_mode_is_passed_on(planner: ScriptedPlanner, tmp_path: Path) -> None:
    """The planner is asked for the spill; what lies away from home is counted here."""
    asked = []

    def answer(request: plans_pb2.ComputePlanRequest) -> plans_pb2.ComputePlanResponse:
        asked.append(request.policy)
        plan = builders.plan_message(0, deployment="")
        plan.metadata.policy.mode = request.policy.mode
        return plans_pb2.ComputePlanResponse(plan=plan)

    planner.answers["ComputePlan"] = answer
    load, report = tmp_path / "load.npz", tmp_path / "report.json"
    np.savez(load, weight=np.array([[4, 3, 2], [1, 1, 8]]))
    result = await run(
        cli.compute_plan,
        *(str(load), "--ranks", "2", "--nodes", "2", "--slots", "4", "--expert-groups", "3"),
        *("--mode", "soft-hierarchical", "--spill", "2", "--report", str(report)),
        *("--address", planner.address),
    )

    assert result.exit_code == 0, result.output
    (policy,) = asked
    assert policy.mode == deployment_pb2.MODE_SOFT_HIERARCHICAL
    assert policy.max_foreign_replicas == 2
    found = json.loads(report.read_text())
    assert (found["mode"], found["spill"]) == ("soft-hierarchical", 2)
    # Nodes hold 0, 1 | 2, 0 and 2, 1 | 0, 1: every expert is a group, one has a copy away.
    assert found["foreign_replicas"] == [1, 1]


async def test_the_choice_of_a_policy_is_left_to_the_planner(
    planner: ScriptedPlanner, asked: list[plans_pb2.ComputePlanRequest], tmp_path: Path
) -> None:
    """Without --policy none is asked for; what is asked for is passed on."""
    load = tmp_path / "load.npz"
    np.savez(load, weight=np.array([[4, 3, 2], [1, 1, 8]]))
    arguments = (str(load), "--ranks", "2", "--slots", "4", "--address", planner.address)
    results = [
        await run(cli.compute_plan, *arguments),
        await run(cli.compute_plan, *arguments, "--policy", "hybrid"),
    ]

    assert [result.exit_code for result in results] == [0, 0]
    assert [request.policy.name for request in asked] == ["", "hybrid"]
    assert all("deepseek, global" in result.stdout for result in results)


async def test_more_samples_than_a_planner_takes_are_summed(
    planner: ScriptedPlanner, asked: list[plans_pb2.ComputePlanRequest], tmp_path: Path
) -> None:
    """257 samples are sent as 129: every two neighbours in one, the last one alone."""
    load = tmp_path / "load.npz"
    samples = np.arange(257 * 6).reshape(257, 2, 3)
    np.savez(load, samples=samples)
    arguments = (str(load), "--ranks", "2", "--slots", "4", "--address", planner.address)
    result = await run(cli.compute_plan, *arguments)

    assert result.exit_code == 0, result.output
    (request,) = asked
    sent = from_tensor(request.samples, field="samples", max_shape=(256, 2, 3))
    np.testing.assert_array_equal(sent[0], samples[0] + samples[1])
    np.testing.assert_array_equal(sent[-1], samples[-1])
    assert len(sent) == 129
    assert (sent.sum(axis=0) == samples.sum(axis=0)).all()
    assert "257 samples" in result.stderr


async def test_an_engine_checks_what_a_planner_says(
    planner: ScriptedPlanner, tmp_path: Path
) -> None:
    """Whatever planner made it, a plan that the engine would refuse is not written."""
    plan = builders.plan_message(0, rows=((0, 0, 1, 2), (2, 1, 0, 1)), deployment="")
    planner.answers["ComputePlan"] = lambda _: plans_pb2.ComputePlanResponse(plan=plan)
    load, output = tmp_path / "load.npz", tmp_path / "plan.json"
    np.savez(load, weight=np.array([[4, 3, 2], [1, 1, 8]]))
    arguments = (
        *(str(load), "--ranks", "2", "--slots", "4", "--output", str(output)),
        *("--output-format", "json", "--address", planner.address),
    )
    result = await run(cli.compute_plan, *arguments, "--engine", "ascend")

    assert result.exit_code == 1
    assert "vLLM-Ascend" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not output.exists()
    assert (await run(cli.compute_plan, *arguments)).exit_code == 0
    assert output.exists()


async def test_a_name_of_another_format_is_refused_before_the_planner_is_asked(
    planner: ScriptedPlanner, asked: list[plans_pb2.ComputePlanRequest], tmp_path: Path
) -> None:
    """What vLLM's writer would refuse in the end costs no solve, and not even a read."""
    load, output = tmp_path / "load.npz", tmp_path / "plan.json"
    np.savez(load, weight=np.array([[4, 3, 2], [1, 1, 8]]))
    arguments = (str(load), "--ranks", "2", "--slots", "4", "--address", planner.address)
    refused = await run(cli.compute_plan, *arguments, "--engine", "vllm", "--output", str(output))

    assert (refused.exit_code, asked) == (1, [])
    assert "the format vllm" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert (await run(cli.compute_plan, *arguments)).exit_code == 0
    assert len(asked) == 1


async def test_a_folder_of_load_is_sent_like_a_file(
    planner: ScriptedPlanner, asked: list[plans_pb2.ComputePlanRequest], tmp_path: Path
) -> None:
    """The planner gets the same counts from TensorRT-LLM's folder as from the file behind it."""
    load, folder = tmp_path / "load.npz", tmp_path / "statistics"
    np.savez(load, weight=np.array([[4, 3, 2], [1, 1, 8]]))
    write_load(folder, read_load(load), output_format="trtllm")
    for path in (load, folder):
        arguments = (str(path), "--ranks", "2", "--slots", "4", "--address", planner.address)
        assert (await run(cli.compute_plan, *arguments)).exit_code == 0

    of_file, of_folder = asked
    assert of_file == of_folder


@pytest.mark.parametrize(
    "arguments",
    [
        ("load.npz",),
        ("load.npz", "--ranks", "0", "--slots", "4"),
        ("load.npz", "--ranks", "2", "--slots", "4", "--mode", "best"),
        ("load.npz", "--ranks", "2", "--slots", "4", "--layer-ids", "5-3"),
        ("load.npz", "--ranks", "2", "--slots", "4", "--address", "planner"),
    ],
)
async def test_a_slip_in_the_options_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    """Options that cannot be meant end with exit code 2, before anything is read."""
    assert (await run(cli.compute_plan, *arguments)).exit_code == 2


async def test_a_bad_recording_writes_nothing(planner: ScriptedPlanner, tmp_path: Path) -> None:
    """A damaged input is one line, and leaves no output behind."""
    load, output = tmp_path / "load.npz", tmp_path / "plan.npz"
    load.write_bytes(b"PK")
    result = await run(
        cli.compute_plan,
        *(str(load), "--ranks", "2", "--slots", "4", "--output", str(output)),
        *("--address", planner.address),
    )

    assert result.exit_code == 1
    assert "load.npz" in result.stderr
    assert not output.exists()
