"""Orders from the command line against a scripted planner."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from expertplane.v1 import (
    decision_pb2,
    deployment_pb2,
    deployment_service_pb2 as deployments_pb2,
    plan_pb2,
    plan_service_pb2 as plans_pb2,
)
from expertplane_client import cli
from expertplane_client.formats import PlacementMap, write_placement
from expertplane_client.tensors import from_tensor

from . import builders
from .commands import run


if TYPE_CHECKING:
    from pathlib import Path

    import click
    from click.testing import Result

    from .scripted_planner import ScriptedPlanner


NAME = builders.DEPLOYMENT
GUARDS = ("--expected-head", "7", "--request-id", "r-1")


@pytest.fixture
async def obedient(planner: ScriptedPlanner) -> ScriptedPlanner:
    """Returns a planner that does as it is told."""
    staging = builders.plan_message(8).metadata
    staging.state = plan_pb2.PLAN_STATE_STAGING
    deployment = builders.deployment(
        head_version=8, committed_version=7, is_paused=True, pause_comment="rack 7"
    )
    deployment.spec.CopyFrom(builders.spec())
    decision = decision_pb2.Decision(
        sequence=3,
        reason=decision_pb2.DECISION_REASON_PUBLISHED,
        plan_version=8,
        message="Gain 12 %\nat 3 moved slots.",
    )
    planner.answers |= {
        "GetDeployment": lambda _: deployments_pb2.GetDeploymentResponse(deployment=deployment),
        "PublishPlan": lambda _: plans_pb2.PublishPlanResponse(plan=staging),
        "RollBack": lambda _: plans_pb2.RollBackResponse(plan=staging),
        "Rebalance": lambda _: plans_pb2.RebalanceResponse(decision=decision),
        "Pause": lambda _: plans_pb2.PauseResponse(deployment=deployment),
        "Resume": lambda _: plans_pb2.ResumeResponse(deployment=deployment),
    }
    return planner


async def order(planner: ScriptedPlanner, command: click.Command, *arguments: str) -> Result:
    """Runs a command against the planner."""
    return await run(command, *arguments, "--address", planner.address)


async def test_a_roll_back_tells_its_new_version(obedient: ScriptedPlanner) -> None:
    """One line: what came back, as which version, in which state."""
    result = await order(obedient, cli.rollback, NAME, "--to", "5", *GUARDS)

    assert result.stdout == (
        "rolled back to version 5 as version 8 of prod/tiny: STAGING, 3 moved slots, "
        "sha256 b3c72283134e\n"
    )
    (request,) = obedient.requests
    assert (request.to_version, request.expected_head, request.request_id) == (5, 7, "r-1")


async def test_a_rebalance_tells_its_decision(obedient: ScriptedPlanner) -> None:
    """One line: the reason, the version and the sentence."""
    result = await order(obedient, cli.rebalance, NAME, *GUARDS)

    assert result.stdout == "prod/tiny: PUBLISHED version 8. Gain 12 % at 3 moved slots.\n"
    (request,) = obedient.requests
    assert (request.expected_head, request.request_id) == (7, "r-1")


async def test_a_pause_and_its_end_are_told(obedient: ScriptedPlanner) -> None:
    """One line each; the comment is the one in force."""
    paused = await order(obedient, cli.pause, NAME, "--comment", "rack 7", "--request-id", "r-1")
    resumed = await order(obedient, cli.resume, NAME, "--request-id", "r-2")

    assert paused.stdout == "paused prod/tiny at version 7: rack 7\n"
    assert resumed.stdout == "resumed prod/tiny at version 7\n"
    assert [request.request_id for request in obedient.requests] == ["r-1", "r-2"]
    assert obedient.requests[0].comment == "rack 7"


@pytest.mark.parametrize(
    ("command", "arguments", "expected"),
    [
        (cli.rollback, ("--to", "5"), {"version": 8, "state": "STAGING", "moved_slots": 3}),
        (cli.rebalance, (), {"reason": "PUBLISHED", "plan_version": 8, "sequence": 3}),
        (cli.pause, (), {"name": NAME, "is_paused": True, "comment": "rack 7", "committed": 7}),
        (cli.resume, (), {"name": NAME, "head": 8}),
    ],
    ids=["rollback", "rebalance", "pause", "resume"],
)
async def test_orders_speak_json(
    obedient: ScriptedPlanner,
    command: click.Command,
    arguments: tuple[str, ...],
    expected: dict[str, Any],
) -> None:
    """Machines get one object with everything that is told."""
    result = await order(obedient, command, NAME, *arguments, "--json")

    assert expected.items() <= json.loads(result.stdout).items()


@pytest.fixture
def placement_file(tmp_path: Path) -> Path:
    """Returns a file with a placement for the deployment's layers."""
    path = tmp_path / "placement.json"
    placement = PlacementMap(
        phy2log=builders.phy2log().astype(np.int64),
        num_logical_experts=3,
        num_ranks=2,
        layer_ids=(3, 4),
    )
    write_placement(path, placement, output_format="json")
    return path


async def test_a_file_is_published(obedient: ScriptedPlanner, placement_file: Path) -> None:
    """The file's map reaches the planner, with the comment; the new version is told."""
    result = await order(
        obedient, cli.publish, NAME, str(placement_file), "--comment", "by hand", *GUARDS
    )

    assert result.stdout == (
        f"published {placement_file} as version 8 of prod/tiny: STAGING, 3 moved slots, "
        "sha256 b3c72283134e\n"
    )
    request = obedient.requests[-1]
    sent = from_tensor(request.phy2log, field="phy2log", max_shape=(9, 9))
    np.testing.assert_array_equal(sent, builders.phy2log())
    assert (request.comment, request.expected_head) == ("by hand", 7)


async def test_a_plan_that_was_shown_can_be_published(
    obedient: ScriptedPlanner, tmp_path: Path
) -> None:
    """What `show --output` writes, `publish` reads."""
    path = tmp_path / "plan.npz"
    obedient.answers["GetPlan"] = lambda _: plans_pb2.GetPlanResponse(
        plan=builders.plan_message(5)
    )
    await order(obedient, cli.show, NAME, "--output", str(path))
    result = await order(obedient, cli.publish, NAME, str(path), "--json")

    assert json.loads(result.stdout)["version"] == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_ids": [3, 5]}, "5"),
        ({"num_logical_experts": 4}, "Expected 4 logical experts"),
        (
            {"topology": deployment_pb2.Topology(num_nodes=2, ranks_per_node=2, slots_per_rank=1)},
            "Expected 4 ranks",
        ),
        (
            {"topology": deployment_pb2.Topology(num_nodes=1, ranks_per_node=2, slots_per_rank=3)},
            "2 layers on 6 slots, got [2, 4]",
        ),
    ],
    ids=["layers", "experts", "ranks", "slots"],
)
async def test_a_file_for_another_machine_is_refused(
    obedient: ScriptedPlanner, placement_file: Path, changes: dict[str, Any], message: str
) -> None:
    """What does not fit the deployment is told before the planner is asked to publish it."""
    other = builders.deployment()
    other.spec.CopyFrom(builders.spec(**changes))
    obedient.answers["GetDeployment"] = lambda _: deployments_pb2.GetDeploymentResponse(
        deployment=other
    )
    result = await order(obedient, cli.publish, NAME, str(placement_file))

    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert len(obedient.requests) == 1


async def test_a_head_that_has_moved_on_is_one_line(obedient: ScriptedPlanner) -> None:
    """The planner's word, exit code 1, and nothing on stdout."""
    obedient.failure = (grpc.StatusCode.ABORTED, "Expected head 7, got 8.", ())
    result = await order(obedient, cli.rollback, NAME, "--to", "5", *GUARDS)

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: Expected head 7, got 8.\n"
