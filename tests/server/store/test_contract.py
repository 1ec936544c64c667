"""What every store promises."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from expertplane_server.core.errors import AlreadyExistsError, ConflictError, NotFoundError
from expertplane_server.core.parameters import (
    ForecastParameters,
    MigrationParameters,
    PlacementRules,
    RolloutParameters,
)
from expertplane_server.core.plan import PlanState
from expertplane_server.core.spec import Mode, PolicyChoice, RolloutMode

from .. import builders


if TYPE_CHECKING:
    from expertplane_server.core.plan import Plan
    from expertplane_server.core.spec import Deployment, DeploymentSpec
    from expertplane_server.store import Store


ANY_VERSION = 2**63 - 1


def create(
    store: Store,
    name: str = builders.NAME,
    *,
    request_id: str = "",
    wanted: DeploymentSpec | None = None,
) -> Deployment:
    """Create a deployment."""
    created, _ = store.create_deployment(
        name, wanted or builders.spec(), request_id=request_id, now_s=1.0
    )
    return created


def publish(store: Store, *layers: tuple[int, ...], name: str = builders.NAME) -> Plan:
    """Publish a plan in the store's term."""
    return builders.published(store, builders.draft(*layers, name=name), now_s=2.0)


def delete(
    store: Store, name: str = builders.NAME, *, etag: str = "", request_id: str = ""
) -> bool:
    """Delete a deployment."""
    return store.delete_deployment(name, etag=etag, request_id=request_id, now_s=3.0)


def versions(store: Store) -> list[int]:
    """Return the versions that the store lists, newest first."""
    return [plan.version for plan in store.plans(builders.NAME, below=ANY_VERSION, limit=100)]


def test_first_epoch(store: Store) -> None:
    """The first owner's term is 1."""
    assert store.epoch == 1


def test_new_deployment(store: Store) -> None:
    """A new deployment has generation 1 and no plans."""
    created = create(store)

    assert (created.name, created.generation, created.head, created.committed) == (
        builders.NAME,
        1,
        0,
        0,
    )
    assert store.deployments() == [created]
    assert versions(store) == []


def test_spec_comes_back(store: Store) -> None:
    """A spec is stored whole."""
    wanted = builders.spec(
        layer_ids=(3, 7),
        num_expert_groups=2,
        model_name="d\u00e9epseek",
        engine="vllm",
        rules=PlacementRules(
            forbids_duplicates=True, forbids_moves_inside_rank=True, max_replicas=3
        ),
        policy=PolicyChoice(
            name="deepseek",
            mode=Mode.GLOBAL,
            seed=2**63 - 1,
            parameters=(("a", "1"), ("b", '"x"')),
            max_moved_slots=0,
        ),
        forecast=ForecastParameters(recent_windows=2, half_life_windows=3.5),
        migration=MigrationParameters(bytes_per_expert=44_000_000, intra_node_bytes_per_s=1e9),
        rollout_mode=RolloutMode.COORDINATED,
        rollout=RolloutParameters(stage_deadline_s=7.5, hold_down_s=0),
        window_samples=7,
        min_gain=0.123,
        deadline_s=1.5,
    )
    create(store, wanted=wanted)

    assert [each.spec for each in store.deployments()] == [wanted]


def test_deployments_by_name(store: Store) -> None:
    """Deployments are listed by name."""
    for name in ("b/b", "a/b", "b/a"):
        create(store, name)

    assert [each.name for each in store.deployments()] == ["a/b", "b/a", "b/b"]


def test_name_taken(store: Store) -> None:
    """A second deployment of one name is refused."""
    create(store)

    with pytest.raises(AlreadyExistsError) as refusal:
        create(store)
    assert (refusal.value.field, refusal.value.reason) == ("name", "NAME_TAKEN")


def test_repeated_creation(store: Store) -> None:
    """A creation that is asked for again returns the first answer, and says that it is old."""
    first = create(store, request_id="r1")

    again = store.create_deployment(builders.NAME, builders.spec(), request_id="r1", now_s=9.0)
    assert again == (first, False)


@pytest.mark.parametrize("is_deleted", [True, False])
def test_request_id_of_another_creation(store: Store, is_deleted: bool) -> None:
    """A request id belongs to one call, also when what it created is gone."""
    create(store, request_id="r1")
    if is_deleted:
        delete(store)

    with pytest.raises(ConflictError) as refusal:
        create(store, builders.NAME if is_deleted else "other/name", request_id="r1")
    assert (refusal.value.field, refusal.value.reason) == ("request_id", "REQUEST_ID_REUSED")
    assert len(store.deployments()) == (0 if is_deleted else 1)


def test_failed_creation_leaves_its_request_id_free(store: Store) -> None:
    """A creation that was refused may be asked for again under the same id."""
    create(store)
    with pytest.raises(AlreadyExistsError):
        create(store, request_id="r1")
    delete(store)

    assert create(store, request_id="r1").name == builders.NAME


def test_deleted(store: Store) -> None:
    """A deleted deployment is gone with its plans."""
    create(store)
    publish(store)

    assert delete(store)
    assert (store.deployments(), versions(store)) == ([], [])
    with pytest.raises(NotFoundError):
        store.plan(builders.NAME, 1)


def test_delete_what_is_not_there(store: Store) -> None:
    """Only what exists can be deleted."""
    with pytest.raises(NotFoundError) as refusal:
        delete(store)
    assert refusal.value.reason == "DEPLOYMENT_UNKNOWN"


def test_delete_with_its_etag(store: Store) -> None:
    """The current etag deletes, another does not."""
    created = create(store)

    with pytest.raises(ConflictError) as refusal:
        delete(store, etag="stale")
    assert (refusal.value.field, refusal.value.reason) == ("etag", "STALE_ETAG")
    assert store.deployments() == [created]
    assert delete(store, etag=created.etag)


def test_repeated_removal(store: Store) -> None:
    """A removal that is asked for again removes nothing more, also what has come since."""
    create(store)

    assert delete(store, request_id="r1")
    assert not delete(store, request_id="r1")
    create(store)
    assert not delete(store, request_id="r1")
    assert len(store.deployments()) == 1


def test_request_id_of_another_kind_of_call(store: Store) -> None:
    """The id of a creation cannot remove, nor the other way round."""
    create(store, request_id="r1")
    with pytest.raises(ConflictError):
        delete(store, request_id="r1")
    delete(store, request_id="r2")

    with pytest.raises(ConflictError):
        create(store, request_id="r2")


def test_versions_go_on_after_a_deletion(store: Store) -> None:
    """A deployment of an earlier name never reuses a version."""
    create(store)
    publish(store)
    publish(store)
    delete(store)

    created = create(store)
    assert (created.head, created.committed) == (2, 0)
    assert publish(store).version == 3


def test_recreated_deployment_has_another_etag(store: Store) -> None:
    """An etag of a deleted deployment does not fit its successor."""
    first = create(store)
    delete(store)

    assert create(store).etag != first.etag


def test_publish(store: Store) -> None:
    """A published plan has the next version and the term, and comes back the same."""
    create(store)
    draft = builders.draft((3, 1, 2, 0))
    plan = builders.published(store, draft, now_s=77.25)

    assert (plan.version, plan.epoch, plan.state) == (1, 1, PlanState.COMMITTED)
    assert plan.created_at_s == 77.25
    read = store.plan(builders.NAME, 1)
    assert read.phy2log.tolist() == [[3, 1, 2, 0]]
    assert read.phy2log.dtype == np.int32
    assert _without_map(read) == _without_map(plan)


def test_plan_without_incumbent(store: Store) -> None:
    """A plan that was compared with nothing comes back so."""
    create(store)
    builders.published(store, builders.draft(has_incumbent=False))

    assert store.plan(builders.NAME, 1).draft.solution.balance_before is None


def test_versions_rise(store: Store) -> None:
    """Every plan has the version after the one before, and the deployment follows."""
    create(store)

    assert [publish(store).version for _ in range(3)] == [1, 2, 3]
    (deployment,) = store.deployments()
    assert (deployment.head, deployment.committed) == (3, 3)


def test_versions_are_counted_per_deployment(store: Store) -> None:
    """Deployments do not share versions."""
    create(store, "a/a")
    create(store, "b/b")

    assert [publish(store, name=name).version for name in ("a/a", "b/b", "a/a")] == [1, 1, 2]


def test_older_plans_are_superseded(store: Store) -> None:
    """A new plan supersedes all older ones, applied or not."""
    create(store)
    publish(store)
    store.mark_applied(builders.NAME, 1, epoch=store.epoch)
    publish(store)
    publish(store)

    states = [store.plan(builders.NAME, version).state for version in (1, 2, 3)]
    assert states == [PlanState.SUPERSEDED, PlanState.SUPERSEDED, PlanState.COMMITTED]


def test_applied(store: Store) -> None:
    """A committed plan becomes an applied one."""
    create(store)
    publish(store)
    store.mark_applied(builders.NAME, 1, epoch=store.epoch)

    assert store.plan(builders.NAME, 1).state is PlanState.APPLIED


def test_applied_too_late(store: Store) -> None:
    """A superseded plan stays so; what does not exist is passed over."""
    create(store)
    publish(store)
    publish(store)
    store.mark_applied(builders.NAME, 1, epoch=store.epoch)
    store.mark_applied(builders.NAME, 9, epoch=store.epoch)
    store.mark_applied("no/such", 1, epoch=store.epoch)

    assert store.plan(builders.NAME, 1).state is PlanState.SUPERSEDED


def test_publish_for_nobody(store: Store) -> None:
    """A plan needs its deployment."""
    with pytest.raises(NotFoundError) as refusal:
        publish(store)
    assert refusal.value.reason == "DEPLOYMENT_UNKNOWN"


@pytest.mark.parametrize("epoch", [0, 2])
def test_publish_in_another_term(store: Store, epoch: int) -> None:
    """A write of another term than the store's changes nothing."""
    create(store)

    with pytest.raises(ConflictError) as refusal:
        builders.published(store, epoch=epoch)
    assert refusal.value.reason == "STALE_EPOCH"
    assert versions(store) == []


@pytest.mark.parametrize(
    ("version", "epoch", "expected"),
    [
        (0, 0, (1, 1)),
        (1, 1, (1, 1)),
        (7, 0, (7, 1)),
        # The same number, reached by another way: a new term tells the two apart.
        (7, 1, (7, 2)),
        (0, 2, (1, 3)),
        (7, 7, (7, 8)),
        (2**62, 2**62, (2**62, 2**62 + 1)),
    ],
)
def test_raise_counters(store: Store, version: int, epoch: int, expected: tuple[int, int]) -> None:
    """The head rises to what was seen, the epoch above it; neither ever falls."""
    create(store)
    publish(store)

    assert store.raise_counters(builders.NAME, version=version, epoch=epoch) == expected
    assert store.epoch == expected[1]
    (deployment,) = store.deployments()
    assert (deployment.head, deployment.committed) == (expected[0], 1)
    assert publish(store).version == expected[0] + 1


def test_raised_epoch_fences_the_one_before(store: Store) -> None:
    """After the epoch was raised, a write of the former term is refused."""
    create(store)
    store.raise_counters(builders.NAME, version=0, epoch=5)

    with pytest.raises(ConflictError):
        builders.published(store, epoch=1)


def test_raise_counters_of_nobody(store: Store) -> None:
    """Counters belong to a deployment; without one the epoch stays as well."""
    with pytest.raises(NotFoundError):
        store.raise_counters(builders.NAME, version=5, epoch=5)
    assert store.epoch == 1


def test_page_of_plans(store: Store) -> None:
    """Plans come newest first, below the version and up to the limit."""
    create(store)
    for _ in range(5):
        publish(store)

    assert [plan.version for plan in store.plans(builders.NAME, below=5, limit=2)] == [4, 3]
    assert versions(store) == [5, 4, 3, 2, 1]


def test_plans_of_nobody(store: Store) -> None:
    """An unknown deployment has no plans."""
    assert store.plans("no/such", below=ANY_VERSION, limit=10) == []


@pytest.mark.parametrize("version", [0, 2])
def test_plan_not_found(store: Store, version: int) -> None:
    """Only assigned versions exist."""
    create(store)
    publish(store)

    with pytest.raises(NotFoundError) as refusal:
        store.plan(builders.NAME, version)
    assert refusal.value.reason == "PLAN_VERSION_UNKNOWN"


def _without_map(plan: Plan) -> Plan:
    """Return a plan that compares by everything but its array."""
    solution = replace(plan.draft.solution, phy2log=None)  # type: ignore[arg-type]  # arrays do not compare
    return replace(plan, draft=replace(plan.draft, solution=solution))
