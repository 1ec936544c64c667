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
from expertplane_client.cli.rows import balance_text

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
    rollout = deployment_pb2.RolloutParameters(mode=deployment_pb2.ROLLOUT_MODE_COORDINATED)
    pages = {
        "": deployments_pb2.ListDeploymentsResponse(
            deployments=[
                builders.deployment(
                    head_version=2,
                    committed_version=1,
                    staging_version=2,
                    applied_min_version=0,
                    applied_max_version=1,
                    epoch=5,
                    num_participants=4,
                    last_decision=decision,
                    is_paused=True,
                    pause_comment="rack 7",
                    hold_down_s=59.7,
                )
            ],
            next_page_token="more",
        ),
        "more": deployments_pb2.ListDeploymentsResponse(
            deployments=[builders.deployment("prod/young", epoch=5)]
        ),
    }
    pages[""].deployments[0].spec.rollout.CopyFrom(rollout)
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
                "staging": 2,
                "applied_min": 0,
                "applied_max": 1,
                "mode": "coordinated",
            },
            {
                "name": "prod/young",
                "head": 0,
                "committed": 0,
                "epoch": 5,
                "participants": 0,
                "last_decision": None,
                "staging": 0,
                "applied_min": 0,
                "applied_max": 0,
                "mode": "advisory",
            },
        ]
    }


async def test_the_status_is_a_table_with_notes(busy_planner: ScriptedPlanner) -> None:
    """A row and a note for each deployment, in 80 columns."""
    result = await run(cli.status, "--address", busy_planner.address)

    assert result.stdout.splitlines() == [
        "deployment  mode         head  committed  staging  applied  members",
        "prod/tiny   coordinated     2          1        2      0-1        4",
        "prod/young  advisory        0          0        -        -        0",
        "prod/tiny: PUBLISHED; rests 60 s more; paused: rack 7",
        "prod/young: nothing decided yet",
    ]


async def test_a_long_note_is_cut(planner: ScriptedPlanner) -> None:
    """What an operator has to say never breaks the 80 columns."""
    deployment = builders.deployment(is_paused=True, pause_comment="why " * 100)
    planner.answers["ListDeployments"] = lambda _: deployments_pb2.ListDeploymentsResponse(
        deployments=[deployment]
    )
    note = (await run(cli.status, "--address", planner.address)).stdout.splitlines()[-1]

    assert note.startswith("prod/tiny: nothing decided yet; paused: why why")
    assert len(note) <= 80


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

    assert table.stdout.splitlines() == [
        "version  state      reason     balance  moved  sha256      ",
        "      2  COMMITTED  PUBLISHED   0.9000      3  b3c72283134e",
        "      1  COMMITTED  PUBLISHED   0.9000      3  b3c72283134e",
    ]
    assert [(plan["version"], plan["state"], plan["reason"]) for plan in document["plans"]] == [
        (2, "COMMITTED", "PUBLISHED"),
        (1, "COMMITTED", "PUBLISHED"),
    ]


def test_a_plan_that_was_not_scored_has_no_balance() -> None:
    """0 would read as the worst of all placements; a plan without load has no figure."""
    assert (balance_text(0.0), balance_text(0.75)) == ("-", "0.7500")


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
    assert result.stderr == (
        "Error: Expected a planner at 127.0.0.1:1, got no answer (connection refused).\n"
    )


async def test_a_planner_that_is_too_old_is_one_line(planner: ScriptedPlanner) -> None:
    """The call that it does not serve is named."""
    planner.failure = (grpc.StatusCode.UNIMPLEMENTED, "Method not found!", ())
    result = await run(cli.diff, "a/b", "1", "2", "--address", planner.address)

    assert (result.exit_code, result.stderr) == (
        1,
        f"Error: Expected the planner at {planner.address} to serve DiffPlans, got "
        "UNIMPLEMENTED (it may be older than this client).\n",
    )


async def test_a_refusal_is_one_line(planner: ScriptedPlanner) -> None:
    """What the planner says is told as it is."""
    planner.failure = (grpc.StatusCode.NOT_FOUND, "Expected a deployment, got 'a/b'.", ())
    result = await run(cli.show, "a/b", "--address", planner.address)

    assert (result.exit_code, result.stderr) == (1, "Error: Expected a deployment, got 'a/b'.\n")


async def test_the_latest_plan_is_shown(busy_planner: ScriptedPlanner) -> None:
    """It may be one that is still being staged; a version besides is a contradiction."""
    arguments = (builders.DEPLOYMENT, "--latest", "--address", busy_planner.address)
    shown = await run(cli.show, *arguments)
    refused = await run(cli.show, *arguments, "--version", "1")

    assert shown.exit_code == 0
    assert [request.alias for request in busy_planner.requests] == [plans_pb2.PLAN_ALIAS_LATEST]
    assert refused.stderr.startswith("Error: Expected --version or --latest")


async def test_plans_are_compared(planner: ScriptedPlanner) -> None:
    """A line for the whole and a row for every layer that changes."""
    planner.answers["DiffPlans"] = lambda _: plans_pb2.DiffPlansResponse(
        changes=[
            plans_pb2.SlotChange(layer=1, slot=0, from_expert=2, to_expert=1),
            plans_pb2.SlotChange(layer=1, slot=3, from_expert=0, to_expert=2),
        ],
        moved_slots_per_layer=[0, 1],
        transfers=builders.transfers_message(),
    )
    arguments = (builders.DEPLOYMENT, "0", "4", "--address", planner.address)
    table = await run(cli.diff, *arguments)
    document = json.loads((await run(cli.diff, *arguments, "--json")).stdout)

    assert table.stdout.splitlines() == [
        "prod/tiny, version 0 to 4: 2 changed slots, 1 moved, 88 bytes in about 0.5 s",
        "row  changed slots  moved slots  rounds",
        "  1              2            1       1",
    ]
    assert document["changes"] == {
        "layer": [1, 1],
        "slot": [0, 3],
        "from_expert": [2, 0],
        "to_expert": [1, 2],
    }
    assert (document["moved_slots_per_layer"], document["transfers"]["round"]) == ([0, 1], [1])


async def test_equal_plans_say_so(planner: ScriptedPlanner) -> None:
    """No table without changes."""
    planner.answers["DiffPlans"] = lambda _: plans_pb2.DiffPlansResponse()
    result = await run(cli.diff, builders.DEPLOYMENT, "4", "5", "--address", planner.address)

    assert result.stdout == "prod/tiny, version 4 to 5: the same placement\n"
