"""`expertplane export` against a scripted planner."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from expertplane.v1 import (
    deployment_pb2,
    deployment_service_pb2 as deployments_pb2,
    plan_service_pb2 as plans_pb2,
)
from expertplane_client import cli
from expertplane_client.formats import read_placement

from . import builders
from .commands import run


if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

    from .scripted_planner import ScriptedPlanner


DUPLICATE_ROWS = ((0, 0, 1, 2), (2, 1, 0, 1))


@pytest.fixture
async def keeper(planner: ScriptedPlanner) -> ScriptedPlanner:
    """Returns a planner with plans for an engine of vLLM; version 1 is of an older topology."""
    deployment = builders.deployment()
    deployment.generation = 2
    engine = deployment_pb2.EngineProfile(engine=deployment_pb2.ENGINE_VLLM)
    deployment.spec.CopyFrom(builders.spec(engine=engine))

    def plan(request: plans_pb2.GetPlanRequest) -> plans_pb2.GetPlanResponse:
        version = request.version or 6
        rows = DUPLICATE_ROWS if version == 5 else builders.ROWS
        message = builders.plan_message(version, rows=rows, generation=1 if version == 1 else 2)
        return plans_pb2.GetPlanResponse(plan=message)

    planner.answers |= {
        "GetDeployment": lambda _: deployments_pb2.GetDeploymentResponse(deployment=deployment),
        "GetPlan": plan,
    }
    return planner


async def export(planner: ScriptedPlanner, output: Path, *options: str) -> Result:
    """Runs the command."""
    arguments = (builders.DEPLOYMENT, str(output), *options, "--address", planner.address)
    return await run(cli.export, *arguments)


async def test_the_deployments_engine_is_written_for(
    keeper: ScriptedPlanner, tmp_path: Path
) -> None:
    """Without options the committed plan comes in the format of the deployment's engine."""
    output = tmp_path / "map.pt"
    result = await export(keeper, output)

    assert result.stdout == f"wrote version 6 of prod/tiny as vllm to {output}\n"
    found = read_placement(output, input_format="vllm", layer_ids=(3, 4))
    np.testing.assert_array_equal(found.phy2log, builders.phy2log())


@pytest.mark.parametrize(
    ("name", "options", "written"),
    [
        ("map.json", ("--engine", "ascend"), "ascend"),
        ("map.json", ("--engine", "sglang", "--hidden-layers", "6"), "sglang"),
        ("map.yaml", ("--engine", "trtllm"), "trtllm"),
        ("map.json", ("--format", "json"), "json"),
        ("map.npz", ("--format", "npz"), "npz"),
        ("map.npz", ("--engine", "ascend", "--format", "npz"), "npz"),
        ("map.json", ("--format", "hygon", "--model-class", "Qwen3"), "hygon"),
    ],
)
async def test_every_format_is_written(
    keeper: ScriptedPlanner, tmp_path: Path, name: str, options: tuple[str, ...], written: str
) -> None:
    """What is written reads back as the plan that was asked for."""
    output = tmp_path / name
    result = await export(keeper, output, *options, "--version", "4", "--json")

    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert (document["format"], document["version"]) == (written, 4)
    found = read_placement(output, input_format=written, layer_ids=(3, 4))
    np.testing.assert_array_equal(found.phy2log, builders.phy2log())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("map.json", ("--engine", "sglang"), "--hidden-layers 5"),
        ("map.json", ("--engine", "ascend", "--version", "5"), "one replica of an expert"),
        ("map.pt", ("--version", "1"), "of generation 1"),
        ("map.npz", (), "ends in .pt or .pth for the format vllm"),
        ("map.pt", ("--hidden-layers", "6"), "Expected --hidden-layers only"),
        ("map.json", ("--format", "hygon"), "Expected --model-class"),
    ],
)
async def test_what_cannot_be_written_is_refused_in_one_line(
    keeper: ScriptedPlanner, tmp_path: Path, name: str, options: tuple[str, ...], message: str
) -> None:
    """A file that the engine would not take, or take for another, is never left behind."""
    output = tmp_path / name
    result = await export(keeper, output, *options)

    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not output.exists()
