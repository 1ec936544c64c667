"""The client's commands against a scripted planner."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from click.testing import CliRunner, Result

from expertplane.v1 import (
    decision_pb2,
    deployment_pb2,
    deployment_service_pb2 as deployments_pb2,
    plan_service_pb2 as plans_pb2,
)
from expertplane_client import cli
from expertplane_client.formats import read_load, write_load

from . import builders
from .scripted_planner import PATIENCE_S, ScriptedPlanner


if TYPE_CHECKING:
    from pathlib import Path

    import click


async def run(command: click.Command, *arguments: str, env: Any = None) -> Result:
    """Runs a command in a thread, while the planner serves in this one."""
    return await asyncio.to_thread(
        CliRunner().invoke, command, list(arguments), env=env or {}, catch_exceptions=False
    )


@pytest.fixture
async def busy_planner(planner: ScriptedPlanner) -> ScriptedPlanner:
    """Returns a planner with two deployments, one of which has decided something."""
    decision = decision_pb2.Decision(
        sequence=3,
        reason=decision_pb2.DECISION_REASON_PUBLISHED,
        message="Gain 12 % at 3 moved slots.",
        predicted_gain=0.12,
        moved_slots=3,
        plan_version=2,
    )
    decision.decided_at.FromJsonString("2026-11-21T09:00:00Z")
    pages = {
        "": deployments_pb2.ListDeploymentsResponse(
            deployments=[
                builders.deployment(
                    head_version=2,
                    committed_version=1,
                    epoch=5,
                    num_participants=4,
                    last_decision=decision,
                )
            ],
            next_page_token="more",
        ),
        "more": deployments_pb2.ListDeploymentsResponse(
            deployments=[builders.deployment("prod/young", epoch=5)]
        ),
    }
    planner.answers |= {
        "ListDeployments": lambda request: pages[request.page_token],
        "ListPlans": lambda _: plans_pb2.ListPlansResponse(
            plans=[builders.plan_message(version).metadata for version in (2, 1)]
        ),
        "GetPlan": lambda request: plans_pb2.GetPlanResponse(
            plan=builders.plan_message(request.version or 2)
        ),
        "ExplainDecisions": lambda _: plans_pb2.ExplainDecisionsResponse(decisions=[decision]),
        "ComputePlan": lambda _: plans_pb2.ComputePlanResponse(
            plan=builders.plan_message(0, deployment="")
        ),
    }
    return planner


async def test_status_has_exactly_this_shape(busy_planner: ScriptedPlanner) -> None:
    """Machines read these keys; the reason is bare, and null where nothing was decided."""
    result = await run(cli.status, "--json", "--address", busy_planner.address)

    assert json.loads(result.stdout) == {
        "deployments": [
            {
                "name": "prod/tiny",
                "head": 2,
                "committed": 1,
                "epoch": 5,
                "participants": 4,
                "last_decision": "PUBLISHED",
            },
            {
                "name": "prod/young",
                "head": 0,
                "committed": 0,
                "epoch": 5,
                "participants": 0,
                "last_decision": None,
            },
        ]
    }


async def test_the_address_comes_from_the_environment(busy_planner: ScriptedPlanner) -> None:
    """EXPERTPLANE_ADDRESS sets the planner; the table shows every deployment."""
    result = await run(cli.status, env={"EXPERTPLANE_ADDRESS": busy_planner.address})

    assert result.exit_code == 0
    assert "prod/tiny" in result.stdout
    assert "prod/young" in result.stdout


async def test_plans_are_listed(busy_planner: ScriptedPlanner) -> None:
    """Newest first, for people and for machines."""
    arguments = (builders.DEPLOYMENT, "--address", busy_planner.address)
    table = await run(cli.plans, *arguments)
    document = json.loads((await run(cli.plans, *arguments, "--json")).stdout)

    assert builders.PINNED_DIGEST[:12] in table.stdout
    assert [(plan["version"], plan["state"], plan["reason"]) for plan in document["plans"]] == [
        (2, "COMMITTED", "PUBLISHED"),
        (1, "COMMITTED", "PUBLISHED"),
    ]


async def test_a_plan_is_shown_and_written(busy_planner: ScriptedPlanner, tmp_path: Path) -> None:
    """The maps in the file are those of the plan."""
    output = tmp_path / "plan.npz"
    arguments = (builders.DEPLOYMENT, "--version", "1", "--address", busy_planner.address)
    table = await run(cli.show, *arguments, "--output", str(output))
    document = json.loads((await run(cli.show, *arguments, "--json")).stdout)

    assert "deepseek" in table.stdout
    assert (document["version"], document["sha256"]) == (1, builders.PINNED_DIGEST)
    with np.load(output) as found:
        np.testing.assert_array_equal(builders.phy2log(), found["phy2log"])
        assert found["log2phy"].shape == (2, 3, 2)


async def test_a_watch_prints_plans_as_they_come(planner: ScriptedPlanner) -> None:
    """Each plan is one line of JSON; the command ends after as many as were asked for."""
    watching = asyncio.ensure_future(
        run(cli.watch, builders.DEPLOYMENT, "--count", "2", "--json", "--address", planner.address)
    )
    async with asyncio.timeout(PATIENCE_S):
        watch = await planner.watches.get()
        for version in (1, 2):
            message = builders.plan_message(version)
            watch.said.put_nowait(plans_pb2.WatchPlansResponse(epoch=1, plan=message))
        result = await watching

    assert [json.loads(line)["version"] for line in result.stdout.splitlines()] == [1, 2]


async def test_decisions_are_explained(busy_planner: ScriptedPlanner) -> None:
    """Reason, gain and moved slots are there, with the sentence that says why."""
    arguments = (builders.DEPLOYMENT, "--address", busy_planner.address)
    table = await run(cli.explain, *arguments)
    (decision,) = json.loads((await run(cli.explain, *arguments, "--json")).stdout)["decisions"]

    assert "Gain 12 % at 3 moved slots." in table.stdout
    assert "PUBLISHED v2" in table.stdout
    assert (
        decision["reason"],
        decision["predicted_gain"],
        decision["moved_slots"],
        decision["plan_version"],
    ) == ("PUBLISHED", 0.12, 3, 2)


async def test_a_plan_is_computed_by_a_planner(
    busy_planner: ScriptedPlanner, tmp_path: Path
) -> None:
    """The outputs are those of the offline command: three maps, and a report about the load."""
    load, output, report = (tmp_path / name for name in ("load.npz", "plan.npz", "report.json"))
    np.savez(load, weight=np.array([[0, 0, 0], [4, 3, 2], [1, 1, 8]]))
    result = await run(
        cli.compute_plan,
        *(str(load), "--ranks", "2", "--slots", "4", "--layer-ids", "1-2", "--mode", "global"),
        *("--seed", "7", "--output", str(output), "--report", str(report)),
        *("--address", busy_planner.address),
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
    planner: ScriptedPlanner, tmp_path: Path
) -> None:
    """What vLLM's writer would refuse in the end costs no solve, and not even a read."""
    asked = []

    def answer(request: plans_pb2.ComputePlanRequest) -> plans_pb2.ComputePlanResponse:
        asked.append(request)
        return plans_pb2.ComputePlanResponse(plan=builders.plan_message(0, deployment=""))

    planner.answers["ComputePlan"] = answer
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
    planner: ScriptedPlanner, tmp_path: Path
) -> None:
    """The planner gets the same counts from TensorRT-LLM's folder as from the file behind it."""
    asked = []

    def answer(request: plans_pb2.ComputePlanRequest) -> plans_pb2.ComputePlanResponse:
        asked.append(request)
        return plans_pb2.ComputePlanResponse(plan=builders.plan_message(0, deployment=""))

    planner.answers["ComputePlan"] = answer
    load, folder = tmp_path / "load.npz", tmp_path / "statistics"
    np.savez(load, weight=np.array([[4, 3, 2], [1, 1, 8]]))
    write_load(folder, read_load(load), output_format="trtllm")
    for path in (load, folder):
        arguments = (str(path), "--ranks", "2", "--slots", "4", "--address", planner.address)
        assert (await run(cli.compute_plan, *arguments)).exit_code == 0

    of_file, of_folder = asked
    assert of_file == of_folder


async def test_a_planner_that_is_away_is_one_line() -> None:
    """No stack of calls: the address, what went wrong, and exit code 1."""
    result = await run(cli.status, "--address", "127.0.0.1:1")

    assert result.exit_code == 1
    assert "127.0.0.1:1" in result.stderr
    assert len(result.stderr.splitlines()) == 1


async def test_a_refusal_is_one_line(planner: ScriptedPlanner) -> None:
    """What the planner says is told as it is."""
    planner.failure = (grpc.StatusCode.NOT_FOUND, "Expected a deployment, got 'a/b'.", ())
    result = await run(cli.show, "a/b", "--address", planner.address)

    assert (result.exit_code, result.stderr) == (1, "Error: Expected a deployment, got 'a/b'.\n")


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


async def test_a_bad_recording_writes_nothing(
    busy_planner: ScriptedPlanner, tmp_path: Path
) -> None:
    """A damaged input is one line, and leaves no output behind."""
    load, output = tmp_path / "load.npz", tmp_path / "plan.npz"
    load.write_bytes(b"PK")
    result = await run(
        cli.compute_plan,
        *(str(load), "--ranks", "2", "--slots", "4", "--output", str(output)),
        *("--address", busy_planner.address),
    )

    assert result.exit_code == 1
    assert "load.npz" in result.stderr
    assert not output.exists()
