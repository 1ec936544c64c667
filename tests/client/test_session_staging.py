"""What a session makes of Stage, Abort and the Commit of what is staged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from expertplane.v1 import placement_service_pb2 as placement_pb2
from expertplane_client.effects import AdoptPlan, Effect, StagePlan, Unstage

from . import builders
from .sessions import ack, adopted, nack, serving, session


if TYPE_CHECKING:
    from expertplane_client import Plan
    from expertplane_client.session import Session


def stage(version: int = 4, *, deadline_s: float = 60, **changes: object) -> placement_pb2.Stage:
    """Returns the request to prepare a plan."""
    plan = builders.plan_message(version, **changes)  # type: ignore[arg-type]  # passed through
    return placement_pb2.Stage(plan=plan, deadline_s=deadline_s)


def begun(effects: tuple[Effect, ...]) -> StagePlan:
    """Returns the one order to prepare a plan among the effects."""
    (order,) = [effect for effect in effects if isinstance(effect, StagePlan)]
    return order


def preparing(version: int = 4, *, nonce: int = 2) -> tuple[Session, Plan]:
    """Returns a session that waits for a plan to be prepared, and the plan."""
    opened = session()
    order = begun(opened.on_response(builders.response(nonce=nonce, stage=stage(version))))
    return opened, order.plan


def prepared(version: int = 4) -> tuple[Session, Plan]:
    """Returns a session that has a plan prepared, and the plan."""
    opened, plan = preparing(version)
    assert opened.staged(plan) is not None
    return opened, plan


def test_staged_is_said_when_it_is_true() -> None:
    """Stage begins the preparation; the Ack, and a Hello's word, wait for its end."""
    opened = session()
    effects = opened.on_response(builders.response(nonce=2, stage=stage(4)))
    order = begun(effects)

    assert [type(effect) for effect in effects if effect != order] == [type(effects[0])]
    assert (order.plan.version, order.deadline_s) == (4, 60)
    assert not opened.hello().hello.HasField("staged")
    assert opened.staged_version == 0


def test_the_ack_names_what_is_staged() -> None:
    """The Ack carries the nonce of its Stage, and the version and digest of the plan."""
    opened, plan = preparing(4, nonce=2)
    request = opened.staged(plan)

    assert request is not None
    assert (request.ack.nonce, request.ack.version, request.ack.phase, request.ack.digest) == (
        2,
        4,
        placement_pb2.ACK_PHASE_STAGED,
        builders.PINNED_DIGEST,
    )
    hello = opened.hello().hello
    assert (hello.staged.version, hello.staged.digest) == (4, builders.PINNED_DIGEST)
    assert opened.staged_version == 4


def test_a_staged_plan_is_committed_without_its_maps() -> None:
    """The Commit that only names the staged plan sends it to the ranks, and uses it up."""
    opened, _ = prepared(4)
    effects = opened.on_response(
        builders.response(nonce=3, commit=builders.commit(4, has_plan=False))
    )

    assert [type(effect) for effect in effects] == [AdoptPlan]
    assert adopted(effects) == [4]
    assert opened.staged_version == 4
    opened.applied(builders.plan(4), 1)
    assert not opened.hello().hello.HasField("staged")


@pytest.mark.parametrize("has_plan", [True, False])
def test_a_commit_amid_the_preparation_follows_it(has_plan: bool) -> None:
    """What is fetched for a plan that is committed meanwhile is not thrown away."""
    opened, plan = preparing(4)
    commit = builders.commit(4, has_plan=has_plan)
    effects = opened.on_response(builders.response(nonce=3, commit=commit))

    assert [type(effect) for effect in effects] == [AdoptPlan]
    assert opened.staged(plan) is not None


def test_a_repeated_stage_is_begun_once_and_answered_last() -> None:
    """Who asks twice is answered once, under the nonce of the latest asking."""
    opened, plan = preparing(4, nonce=2)

    assert opened.on_response(builders.response(nonce=3, stage=stage(4))) == ()
    request = opened.staged(plan)
    assert request is not None
    assert request.ack.nonce == 3


def test_a_stage_of_what_is_staged_is_acked_at_once() -> None:
    """A planner that asks again after a reconnect does not wait for what is there."""
    opened, _ = prepared(4)
    opened.hello()
    answer = ack(opened.on_response(builders.response(nonce=7, stage=stage(4))))

    assert (answer.nonce, answer.version, answer.phase) == (7, 4, placement_pb2.ACK_PHASE_STAGED)


def test_a_stage_of_what_is_applied_is_acked_at_once() -> None:
    """The weights of the plan in force are where they belong."""
    opened = serving(3)
    answer = ack(opened.on_response(builders.response(nonce=7, stage=stage(3))))

    assert (answer.nonce, answer.version, answer.phase) == (7, 3, placement_pb2.ACK_PHASE_STAGED)
    assert opened.staged_version == 0


def test_a_preparation_outlives_its_stream() -> None:
    """A nonce belongs to its stream: what ends on the next one is told as unasked."""
    opened, plan = preparing(4, nonce=2)
    opened.hello()
    request = opened.staged(plan)

    assert request is not None
    assert (request.ack.nonce, request.ack.version) == (0, 4)


@pytest.mark.parametrize(
    ("is_transient", "reason"), [(True, "STAGE_FAILED"), (False, "PLAN_UNACCEPTABLE")]
)
def test_a_failed_preparation_is_a_nack(is_transient: bool, reason: str) -> None:
    """It says whether another try is worth it, and the next Stage begins anew."""
    opened, plan = preparing(4, nonce=2)
    request = opened.not_staged(plan, "no memory", is_transient=is_transient)

    assert request is not None
    assert (
        request.nack.nonce,
        request.nack.version,
        request.nack.is_transient,
        request.nack.problem.reason,
        request.nack.problem.message,
    ) == (2, 4, is_transient, reason, "no memory")
    assert begun(opened.on_response(builders.response(nonce=3, stage=stage(4)))).plan.version == 4


def test_a_newer_stage_replaces_what_is_prepared() -> None:
    """One plan is prepared at a time; the older one is dropped and never answered."""
    opened, older = preparing(4)
    effects = opened.on_response(builders.response(nonce=3, stage=stage(5)))
    newer = begun(effects).plan

    assert effects[1:] == (Unstage(4), StagePlan(newer, 60))
    assert opened.staged(older) is None
    assert opened.not_staged(older, "late", is_transient=True) is None
    assert opened.staged(newer) is not None
    assert opened.staged_version == 5


def test_an_abort_ends_the_preparation() -> None:
    """What was being prepared is dropped, and its end is no news."""
    opened, plan = preparing(4)
    abort = placement_pb2.Abort(version=4)

    assert opened.on_response(builders.response(nonce=3, abort=abort)) == (Unstage(4),)
    assert opened.staged(plan) is None
    assert opened.on_response(builders.response(nonce=4, abort=abort)) == ()


def test_an_aborted_plan_cannot_be_committed() -> None:
    """After an Abort the plan is gone: a Commit that only names it asks for it again."""
    opened, _ = prepared(4)
    abort = placement_pb2.Abort(version=4)
    effects = opened.on_response(builders.response(nonce=3, abort=abort))
    answer = nack(
        opened.on_response(builders.response(nonce=4, commit=builders.commit(4, has_plan=False)))
    )

    assert effects == (Unstage(4),)
    assert (answer.nonce, answer.is_transient, answer.problem.reason) == (4, True, "NOT_STAGED")
    assert not opened.hello().hello.HasField("staged")


def test_an_abort_of_another_version_leaves_the_staged_plan() -> None:
    """Only the version that is named is dropped."""
    opened, _ = prepared(4)

    assert opened.on_response(builders.response(abort=placement_pb2.Abort(version=3))) == ()
    assert opened.hello().hello.staged.version == 4


def test_a_commit_of_another_plan_drops_what_is_staged() -> None:
    """Buffers filled from the placement before hold nothing that the next one could use."""
    opened, _ = prepared(4)
    effects = opened.on_response(builders.response(nonce=3, commit=builders.commit(5)))

    assert effects[1] == Unstage(4)
    assert adopted(effects) == [5]
    assert opened.staged_version == 0


def test_a_bad_staged_plan_is_refused() -> None:
    """What would be refused at its Commit is refused when it is staged; the other one stays."""
    opened, _ = prepared(4)
    message = builders.plan_message(5)
    message.metadata.digest = ""
    effects = opened.on_response(
        builders.response(nonce=5, stage=placement_pb2.Stage(plan=message))
    )

    assert nack(effects).nonce == 5
    assert opened.staged_version == 4


def test_a_lower_epoch_neither_stages_nor_aborts() -> None:
    """A planner whose term is over has no say about the buffers."""
    opened, _ = prepared(4)
    opened.on_response(builders.response(epoch=2, heartbeat=placement_pb2.PlannerHeartbeat()))

    assert opened.on_response(builders.response(epoch=1, stage=stage(5))) == ()
    assert (
        opened.on_response(builders.response(epoch=1, abort=placement_pb2.Abort(version=4))) == ()
    )
    assert opened.staged_version == 4


@pytest.mark.parametrize(
    ("told", "kept"), [(0.0, 3600.0), (-1.0, 3600.0), (float("nan"), 3600.0), (1e300, 3600.0)]
)
def test_deadlines_are_bounded(told: float, kept: float) -> None:
    """No figure of the planner keeps the buffers for ever, or does away with them at once."""
    effects = session().on_response(builders.response(stage=stage(4, deadline_s=told)))

    assert begun(effects).deadline_s == kept
