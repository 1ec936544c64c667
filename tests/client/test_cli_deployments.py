"""`expertplane deployments` against a scripted planner that remembers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from expertplane_client import cli

from . import builders
from .commands import run
from .deployment_store import DeploymentStore
from .light import REPOSITORY


if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

    from .scripted_planner import ScriptedPlanner


NAME = builders.DEPLOYMENT
SPEC = """
name = "prod/tiny"
model_name = "tiny"
layer_ids = "3-4"
num_logical_experts = 3
topology = { num_nodes = 1, ranks_per_node = 2, slots_per_rank = 2 }
trigger = { cooldown_s = 60, min_gain = 0.02 }
"""


@pytest.fixture(autouse=True)
async def store(planner: ScriptedPlanner) -> DeploymentStore:
    """Returns a planner's deployments, of which there are none yet."""
    return DeploymentStore(planner)


@pytest.fixture
def command(planner: ScriptedPlanner) -> Callable[..., Any]:
    """Returns a function that runs `expertplane deployments`."""

    async def run_it(*arguments: str) -> Result:
        return await run(cli.deployments, *arguments, "--address", planner.address)

    return run_it


@pytest.fixture
def apply(command: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Returns a function that applies a file of some text."""

    async def apply(text: str, *options: str) -> Result:
        path = tmp_path / "spec.toml"
        path.write_text(text)
        result: Result = await command("apply", "-f", str(path), *options)
        return result

    return apply


async def test_a_second_apply_changes_nothing(
    apply: Callable[..., Any], store: DeploymentStore, planner: ScriptedPlanner
) -> None:
    """A file is applied once: what the planner has spelt out since is no difference."""
    first = await apply(SPEC)
    num_requests = len(planner.requests)
    second = await apply(SPEC)

    assert first.stdout == "prod/tiny created, generation 1\n"
    assert second.stdout == "prod/tiny unchanged, generation 1\n"
    assert store.deployments[NAME].etag == "e1"
    assert len(planner.requests) == num_requests + 1


async def test_a_change_is_applied_and_told(
    apply: Callable[..., Any], store: DeploymentStore
) -> None:
    """Each field that differs, with its old and its new value; what is left out is a default."""
    await apply(SPEC)
    changed = SPEC.replace("cooldown_s = 60, ", "").replace("0.02", "0.03")
    result = await apply(changed + "rollout = { mode = 'coordinated' }\n")

    assert result.stdout.splitlines() == [
        "prod/tiny updated, generation 1",
        "  trigger.cooldown_s: 60 -> 0",
        "  trigger.min_gain: 0.02 -> 0.03",
        "  rollout.mode: advisory -> coordinated",
    ]
    found = store.deployments[NAME]
    assert (found.etag, found.spec.trigger.cooldown_s, found.spec.trigger.min_gain) == (
        "e2",
        0.0,
        0.03,
    )


async def test_a_changed_topology_is_a_new_generation(apply: Callable[..., Any]) -> None:
    """The generation is told, for it is what participants have to join again for."""
    await apply(SPEC)
    result = await apply(SPEC.replace("slots_per_rank = 2", "slots_per_rank = 3"))

    assert result.stdout.splitlines() == [
        "prod/tiny updated, generation 2",
        "  topology.slots_per_rank: 2 -> 3",
    ]


async def test_a_dry_run_changes_nothing(
    apply: Callable[..., Any], store: DeploymentStore
) -> None:
    """It tells what would be done, and does not."""
    created = await apply(SPEC, "--dry-run")
    assert store.deployments == {}
    await apply(SPEC)
    updated = await apply(SPEC.replace("3-4", "3-5"), "--dry-run")
    unchanged = await apply(SPEC, "--dry-run")

    assert created.stdout == "prod/tiny would be created\n"
    assert updated.stdout == "prod/tiny would be updated\n  layer_ids: 3-4 -> 3-5\n"
    assert unchanged.stdout == "prod/tiny unchanged, generation 1\n"
    assert store.deployments[NAME].etag == "e1"


async def test_a_policy_that_is_not_named_stays(
    apply: Callable[..., Any], store: DeploymentStore
) -> None:
    """Only the planner knows its default, so another change does not change the policy."""
    await apply(SPEC + "policy = { name = 'deepseek' }\n")
    result = await apply(SPEC.replace("60", "90"))

    assert "policy" not in result.stdout
    assert store.deployments[NAME].spec.policy.name == "deepseek"


async def test_a_planner_that_takes_both_for_the_same_is_believed(
    apply: Callable[..., Any], store: DeploymentStore, planner: ScriptedPlanner
) -> None:
    """Where an update leaves the etag as it was, nothing has changed."""
    await apply(SPEC)
    update = planner.answers["UpdateDeployment"]

    def update_as_it_was(request: Any) -> Any:
        request.spec.model_name = "tiny"
        return update(request)

    planner.answers["UpdateDeployment"] = update_as_it_was
    result = await apply(SPEC.replace('model_name = "tiny"', 'model_name = "Tiny"'))

    assert result.stdout == "prod/tiny unchanged, generation 1\n"


async def test_a_file_of_several_is_applied_in_its_order(apply: Callable[..., Any]) -> None:
    """One object for each, with what was done and what has changed."""
    await apply(SPEC)
    text = """
        [[deployments]]
        name = "prod/b"
        [[deployments]]
        name = "prod/tiny"
        model_name = "small"
        layer_ids = [3, 4]
        num_logical_experts = 3
        topology = { num_nodes = 1, ranks_per_node = 2, slots_per_rank = 2 }
        trigger = { cooldown_s = 60, min_gain = 0.02 }
    """
    result = await apply(text, "--json")

    assert json.loads(result.stdout) == {
        "is_dry_run": False,
        "deployments": [
            {
                "name": "prod/b",
                "action": "created",
                "generation": 1,
                "etag": "e1",
                "changes": {},
            },
            {
                "name": "prod/tiny",
                "action": "updated",
                "generation": 1,
                "etag": "e2",
                "changes": {"model_name": {"from": "tiny", "to": "small"}},
            },
        ],
    }


async def test_what_was_done_before_a_refusal_is_told(
    apply: Callable[..., Any], store: DeploymentStore, planner: ScriptedPlanner
) -> None:
    """Output stays JSON, and the refusal is a line beside it."""
    text = "deployments = [{ name = 'a/a' }, { name = 'a/b' }]"
    create = planner.answers["CreateDeployment"]

    def create_one(request: Any) -> Any:
        planner.failure = (grpc.StatusCode.INVALID_ARGUMENT, "Expected x, got y.", ())
        return create(request)

    planner.answers["CreateDeployment"] = create_one
    result = await apply(text, "--json")

    assert result.exit_code == 1
    assert [one["name"] for one in json.loads(result.stdout)["deployments"]] == ["a/a"]
    assert result.stderr == "Error: Expected x, got y.\n"


async def test_a_request_id_is_for_one_deployment(
    apply: Callable[..., Any], store: DeploymentStore, planner: ScriptedPlanner
) -> None:
    """The id goes with the one call that changes something."""
    await apply(SPEC, "--request-id", "r-1")
    refused = await apply(
        "deployments = [{ name = 'a/a' }, { name = 'a/b' }]", "--request-id", "r-1"
    )

    assert planner.requests[-1].request_id == "r-1"
    assert "Expected one deployment" in refused.stderr
    assert list(store.deployments) == [NAME]


async def test_a_slip_in_the_file_asks_nobody(
    apply: Callable[..., Any], planner: ScriptedPlanner
) -> None:
    """An unknown key is one line, before the planner hears of the file."""
    result = await apply(SPEC.replace("min_gain", "min_gian"))

    assert result.exit_code == 1
    assert "got trigger.min_gian in " in result.stderr
    assert "did you mean min_gain" in result.stderr
    assert planner.requests == []


async def test_the_example_can_be_applied(
    command: Callable[..., Any], store: DeploymentStore
) -> None:
    """The file that the documentation shows is applied, and applied again without a change."""
    example = str(REPOSITORY / "docs" / "deployment.example.toml")

    assert (await command("apply", "-f", example)).stdout.startswith("prod/deepseek-v3 created")
    assert (await command("apply", "-f", example)).stdout.startswith("prod/deepseek-v3 unchanged")


async def test_deployments_are_listed(
    apply: Callable[..., Any], command: Callable[..., Any], store: DeploymentStore
) -> None:
    """A row each for people; for machines the spec in the keys of a file, with the etag."""
    empty = await command("list")
    await apply(SPEC)
    table = await command("list")
    (row,) = json.loads((await command("list", "--json")).stdout)["deployments"]

    assert empty.stdout == "No deployments yet.\n"
    assert table.stdout.splitlines() == [
        "deployment  policy  layers  experts  nodes  ranks  slots  gen",
        "prod/tiny   robust       2        3      1      2      4    1",
    ]
    assert (row["name"], row["generation"], row["etag"]) == (NAME, 1, "e1")
    assert (row["spec"]["layer_ids"], row["spec"]["rollout"]["mode"]) == ("3-4", "advisory")


async def test_a_deployment_is_deleted(
    apply: Callable[..., Any],
    command: Callable[..., Any],
    store: DeploymentStore,
    planner: ScriptedPlanner,
) -> None:
    """One line; the etag goes along, and what is not there is a refusal."""
    await apply(SPEC)
    deleted = await command("delete", NAME, "--etag", "e1", "--request-id", "r-1")
    again = await command("delete", NAME)

    assert deleted.stdout == "deleted prod/tiny\n"
    assert store.deployments == {}
    assert [(one.etag, one.request_id) for one in planner.requests[-2:-1]] == [("e1", "r-1")]
    assert (again.exit_code, again.stderr) == (
        1,
        "Error: Expected a deployment, got 'prod/tiny'.\n",
    )


@pytest.mark.parametrize("arguments", [("list",), ("delete", "a/b")])
async def test_a_planner_that_is_away_is_one_line(arguments: tuple[str, ...]) -> None:
    """Whatever was asked of it."""
    result = await run(cli.deployments, *arguments, "--address", "127.0.0.1:1")

    assert (result.exit_code, result.stderr) == (
        1,
        "Error: Expected a planner at 127.0.0.1:1, got no answer (connection refused).\n",
    )
