"""The client's commands against a scripted planner."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest

from expertplane.v1 import (
    decision_pb2,
    deployment_pb2,
    deployment_service_pb2 as deployments_pb2,
    plan_service_pb2 as plans_pb2,
)
from expertplane_client import cli

from . import builders
from .commands import run
from .scripted_planner import PATIENCE_S, ScriptedPlanner


if TYPE_CHECKING:
    from pathlib import Path


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
    assert (document["mode"], document["spill"]) == ("global", 0)
    with np.load(output) as found:
        np.testing.assert_array_equal(builders.phy2log(), found["phy2log"])
        assert found["log2phy"].shape == (2, 3, 2)


async def test_a_plan_tells_its_spill(planner: ScriptedPlanner) -> None:
    """Soft-hierarchical mode means little without the number of replicas that may leave."""
    message = builders.plan_message(1)
    message.metadata.policy.mode = deployment_pb2.MODE_SOFT_HIERARCHICAL
    message.metadata.policy.max_foreign_replicas = 12
    planner.answers["GetPlan"] = lambda _: plans_pb2.GetPlanResponse(plan=message)
    arguments = (builders.DEPLOYMENT, "--address", planner.address)
    lines = [line.split() for line in (await run(cli.show, *arguments)).stdout.splitlines()]
    document = json.loads((await run(cli.show, *arguments, "--json")).stdout)

    assert ["mode", "soft-hierarchical"] in lines
    assert ["spill", "12"] in lines
    assert (document["mode"], document["spill"]) == ("soft-hierarchical", 12)


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
