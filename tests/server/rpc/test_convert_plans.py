"""Plans, decisions and deployments on their way out, and ComputePlan's request on its way in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from expertplane.v1 import decision_pb2, deployment_pb2, plan_pb2, tensor_pb2
from expertplane.wire import decode_tensor, encode_tensor
from expertplane_server.core import events as ev
from expertplane_server.core.errors import ExhaustedError, InvalidArgumentError
from expertplane_server.core.parameters import PlacementRules
from expertplane_server.core.plan import Evaluation, PlanState, Reason
from expertplane_server.rpc.convert import plans as convert
from expertplane_server.rpc.convert.jobs import job_from

from .. import builders
from . import messages
from .messages import shaped, tensor


POLICIES = ("deepseek", "robust")
ANY = (99, 99, 99)


def test_metadata() -> None:
    """A plan's metadata says where it comes from and what it promises."""
    metadata = convert.metadata_to(builders.plan(version=3))

    assert (metadata.deployment, metadata.version, metadata.epoch) == (builders.NAME, 3, 1)
    assert (metadata.generation, metadata.parent_version) == (1, 0)
    assert (metadata.num_layers, metadata.num_slots, metadata.num_logical_experts) == (1, 4, 4)
    assert metadata.digest == builders.plan().digest
    assert (metadata.state, metadata.reason) == (
        plan_pb2.PLAN_STATE_COMMITTED,
        decision_pb2.DECISION_REASON_PUBLISHED,
    )
    assert (metadata.policy.name, metadata.policy.mode) == ("deepseek", deployment_pb2.MODE_GLOBAL)
    assert (metadata.moved_slots, metadata.predicted.balancedness) == (2, 0.8)
    assert list(metadata.predicted.per_layer) == [0.8]


def test_created_at() -> None:
    """Wall-clock seconds become a timestamp, their fraction included."""
    created_at = convert.metadata_to(builders.plan()).created_at

    assert (created_at.seconds, created_at.nanos) == (1000, 500_000_000)


@pytest.mark.parametrize("wall_s", [0.0, 0.999999999, 1763718676.123456, 2.0**31 + 0.1])
def test_timestamp_is_in_range(wall_s: float) -> None:
    """The nanoseconds of a timestamp stay below a second and lose less than a microsecond."""
    stamp = convert._timestamp(wall_s)

    assert 0 <= stamp.nanos < 10**9
    assert abs(stamp.seconds + stamp.nanos * 1e-9 - wall_s) < 1e-6


def test_state_and_reason_tables_are_total() -> None:
    """Every state, reason and evaluation of the core has its number on the wire."""
    assert set(convert.STATES) == set(PlanState)
    assert set(convert.REASONS) == set(Reason)
    assert set(convert.EVALUATIONS) == set(Evaluation)
    assert 0 not in {*convert.STATES.values(), *convert.REASONS.values()}


def test_maps() -> None:
    """The derived maps follow from phy2log: expert 1 has slots 1 and 2, its two replicas."""
    message = convert.solution_to(builders.solution((0, 1, 1, 2), num_logical_experts=3))

    assert message.phy2log.dtype == tensor_pb2.D_TYPE_INT16
    assert decode_tensor(message.phy2log, max_shape=ANY[:2]).tolist() == [[0, 1, 1, 2]]
    assert decode_tensor(message.logcnt, max_shape=ANY[:2]).tolist() == [[1, 2, 1]]
    log2phy = decode_tensor(message.log2phy, max_shape=ANY)
    assert log2phy.tolist() == [[[0, -1], [1, 2], [3, -1]]]


def test_maps_left_out() -> None:
    """Who wants phy2log alone gets it alone."""
    message = convert.solution_to(builders.solution(), omit_derived_maps=True)

    assert message.HasField("phy2log")
    assert not message.HasField("log2phy")
    assert not message.HasField("logcnt")


def test_computed_plan_has_no_version() -> None:
    """A plan that is not stored has neither version nor state nor deployment."""
    metadata = convert.solution_to(builders.solution()).metadata

    assert (metadata.version, metadata.state, metadata.deployment) == (0, 0, "")
    assert not metadata.HasField("created_at")


def _huge() -> Any:
    """Return a solution in which one expert of 4096 has 8 M / 4096 + 1 replicas."""
    num_replicas = 8 * 1024 * 1024 // 4096 + 1
    hot = np.zeros((1, num_replicas - 1), dtype=np.int32)
    phy2log = np.concatenate([np.arange(4096, dtype=np.int32)[None], hot], axis=1)
    return builders.solution(tuple(phy2log[0].tolist()), num_logical_experts=4096)


def test_huge_maps_are_refused() -> None:
    """Derived maps beyond 8 M entries are refused with the way out."""
    with pytest.raises(ExhaustedError, match="ask with omit_derived_maps") as refusal:
        convert.solution_to(_huge())

    assert refusal.value.reason == "PLAN_TOO_LARGE"
    assert convert.solution_to(_huge(), omit_derived_maps=True).HasField("phy2log")


def test_writer_keeps_messages() -> None:
    """A plan is written once for all its readers; another form or state of it is another one."""
    writer = convert.PlanWriter()
    plan = builders.plan()
    message = writer.write(plan)

    assert writer.write(plan) is message
    assert writer.write(plan, omit_derived_maps=True) is not message
    applied = writer.write(plan.with_state(PlanState.APPLIED))
    assert applied.metadata.state == plan_pb2.PLAN_STATE_APPLIED


def test_writer_is_bounded() -> None:
    """The writer keeps the latest 64 messages."""
    writer = convert.PlanWriter()
    first = writer.write(builders.plan(version=1))
    for version in range(2, 66):
        writer.write(builders.plan(version=version))

    assert len(writer._kept) == 64
    assert writer.write(builders.plan(version=1)) is not first


def test_decision() -> None:
    """A decision carries the solver's figures when there was a solve."""
    group = builders.group()
    group.handle(builders.hello(), builders.at())
    group.handle(builders.report(), builders.at())
    group.handle(ev.Solved(solve=1, solution=builders.solution(gain=0.0)), builders.at(2.25))
    assert group.journal.latest is not None
    message = convert.decision_to(group.journal.latest)

    assert (message.sequence, message.epoch, message.num_samples) == (1, 1, 1)
    assert message.reason == decision_pb2.DECISION_REASON_SKIPPED_GAIN_TOO_SMALL
    assert (message.decided_at.seconds, message.decided_at.nanos) == (1002, 250_000_000)
    assert message.evaluation == decision_pb2.EVALUATION_IN_SAMPLE
    assert (message.balancedness_before, message.balancedness_after) == (0.6, 0.8)
    assert (message.moved_slots, message.solve_s) == (2, 0.001)


def test_decision_without_solve() -> None:
    """A decision without a solve has no figures."""
    group = builders.group()
    group.handle(builders.hello(), builders.at())
    group.handle(builders.report(), builders.at())
    group.handle(ev.SolveFailed(solve=1, message="lost"), builders.at())
    assert group.journal.latest is not None
    message = convert.decision_to(group.journal.latest)

    assert message.message == "lost"
    assert (message.evaluation, message.balancedness_after) == (0, 0)


def test_deployment() -> None:
    """A deployment's status tells members, versions, term and samples."""
    plan = builders.plan(version=2)
    group = builders.group(builders.plan(version=1), plan, head=5)
    group.handle(
        builders.hello(1, "a", (0,), applied=builders.ref(builders.plan(version=1))), builders.at()
    )
    group.handle(builders.hello(2, "b", (1,), applied=builders.ref(plan)), builders.at())
    message = convert.deployment_to(group, 0.0)

    assert (message.name, message.etag, message.generation) == (builders.NAME, "etag-1", 1)
    status = message.status
    assert (status.head_version, status.committed_version, status.epoch) == (5, 2, 1)
    assert (status.num_participants, status.applied_min_version) == (2, 1)
    assert status.applied_max_version == 2
    assert (status.staging_version, status.is_paused, status.hold_down_s) == (0, False, 0)
    assert not status.HasField("last_decision")


def test_job_of_a_weight() -> None:
    """A weight is one sample; defaults are spelt out."""
    job = job_from(messages.compute_plan(), POLICIES)

    assert job.samples.tolist() == [[[4, 3, 2, 1]]]
    assert (job.num_expert_groups, job.policy.name, job.topology.num_slots) == (1, "robust", 6)
    assert (job.incumbent, job.forecast) == (None, None)


def test_job_with_an_incumbent() -> None:
    """Incumbent, budget, parameters and the engine's rules reach the solver."""
    incumbent = np.array([[0, 1, 2, 3, 0, 1]], dtype=np.int16)
    request = messages.compute_plan(
        incumbent_phy2log=encode_tensor(incumbent),
        policy=deployment_pb2.PolicySpec(
            max_moved_slots_per_layer=0, parameters={"z": "2.5", "a": "1"}
        ),
        engine=deployment_pb2.EngineProfile(
            engine=deployment_pb2.ENGINE_VLLM_ASCEND, max_replicas_per_expert=2
        ),
    )
    job = job_from(request, POLICIES)

    assert job.incumbent is not None
    assert job.incumbent.tolist() == incumbent.tolist()
    assert job.policy.max_moved_slots == 0
    assert job.policy.parameters == (("a", "1"), ("z", "2.5"))
    assert job.rules == PlacementRules(
        forbids_duplicates=True, forbids_moves_inside_rank=True, max_replicas=2
    )


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        (
            "policy.max_moved_slots_per_layer",
            {"policy": deployment_pb2.PolicySpec(max_moved_slots_per_layer=0)},
        ),
        (
            "engine.max_replicas_per_expert",
            {"engine": deployment_pb2.EngineProfile(max_replicas_per_expert=1)},
        ),
        (
            "engine.forbid_duplicates_on_rank",
            {
                "engine": deployment_pb2.EngineProfile(forbid_duplicates_on_rank=True),
                "topology": messages.topology(slots_per_rank=5),
            },
        ),
    ],
)
def test_job_that_makes_no_sense(field: str, changes: dict[str, Any]) -> None:
    """A budget needs an incumbent, and the engine's rules a placement that keeps them."""
    with pytest.raises(InvalidArgumentError) as refusal:
        job_from(messages.compute_plan(**changes), POLICIES)

    assert refusal.value.field == field


def test_transfers() -> None:
    """A plan carries its migration from the parent; to participants it goes without."""
    solution = builders.solution(transfers=builders.transfers())
    draft = replace(builders.draft(parent=4), solution=solution)
    plan = replace(builders.plan(version=5), draft=draft)
    writer = convert.PlanWriter()
    message = writer.write(plan).transfers

    assert (message.parent_version, message.total_bytes, message.estimated_s) == (
        4,
        88_000_000,
        0.25,
    )
    assert [
        (each.layer, each.logical_expert, each.source_slot, each.target_slot, each.round)
        for each in message.transfers
    ] == [(0, 2, 2, 1, 0), (0, 1, 1, 2, 0)]
    assert {each.link_class for each in message.transfers} == {plan_pb2.LINK_CLASS_SAME_NODE}
    assert not writer.write(plan, omit_transfers=True).HasField("transfers")
    assert not writer.write(builders.plan()).HasField("transfers")


def test_parameters_of_the_policy() -> None:
    """What a policy was told is part of the plan."""
    solution = builders.solution(parameters=(("z", "2.5"),))

    assert convert.solution_to(solution).metadata.policy.parameters == {"z": "2.5"}


def test_job_of_samples() -> None:
    """Samples are taken as they are."""
    job = job_from(messages.compute_plan(samples=tensor([[[1, 2]], [[3, 4]]], "int32")), POLICIES)

    assert job.samples.tolist() == [[[1, 2]], [[3, 4]]]


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("load", {"weight": None}),
        ("weight.dtype", {"weight": tensor_pb2.Tensor()}),
        ("weight.shape", {"weight": tensor([[[1]]])}),
        ("weight.shape", {"weight": shaped([257, 1])}),
        ("weight.shape", {"weight": shaped([1, 4097])}),
        ("weight.data", {"weight": shaped([1, 4], data=b"1")}),
        ("weight.data", {"weight": tensor([[float("nan")]])}),
        ("weight.data", {"weight": tensor([[-1]], "int64")}),
        ("samples.shape", {"samples": shaped([257, 1, 1])}),
        ("samples.data", {"samples": shaped([256, 256, 4096])}),
        ("samples.data", {"samples": tensor([[[2**53 + 1]]], "int64")}),
        ("topology.num_nodes", {"topology": None}),
        ("incumbent_phy2log.shape", {"incumbent_phy2log": tensor([[0] * 5], "int16")}),
        ("incumbent_phy2log.shape", {"incumbent_phy2log": tensor([[0] * 6] * 2, "int16")}),
        ("incumbent_phy2log.shape", {"incumbent_phy2log": tensor([0] * 6, "int16")}),
        ("incumbent_phy2log.dtype", {"incumbent_phy2log": tensor([[0] * 6], "int64")}),
        ("incumbent_phy2log.data", {"incumbent_phy2log": shaped([1, 6], 1)}),
        ("policy.name", {"policy": deployment_pb2.PolicySpec(name="magic")}),
        ("policy.mode", {"policy": deployment_pb2.PolicySpec(mode=77)}),  # type: ignore[arg-type]
    ],
)
def test_bad_job(field: str, changes: dict[str, Any]) -> None:
    """A field of a ComputePlan request that breaks its rule is refused by name."""
    with pytest.raises(InvalidArgumentError) as refusal:
        job_from(messages.compute_plan(**changes), POLICIES)

    assert refusal.value.field == field


def test_a_job_for_lost_and_slow_ranks() -> None:
    """Masked ranks and capacities are passed on, and what is left has to hold the experts."""
    topology = messages.topology(slots_per_rank=4, masked_ranks=[1], rank_capacities=[2.0, 1.0])
    job = job_from(messages.compute_plan(topology=topology), POLICIES)

    assert (job.topology.masked_ranks, job.topology.rank_capacities) == ((1,), (2.0, 1.0))
    with pytest.raises(InvalidArgumentError, match="got 2 slots and 4 experts") as refusal:
        job_from(messages.compute_plan(topology=messages.topology(masked_ranks=[1])), POLICIES)
    assert refusal.value.field == "topology"


def test_writer_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer keeps no more bytes than it may, whatever the number of messages."""
    size = convert.PlanWriter().write(builders.plan()).ByteSize()
    monkeypatch.setattr(convert, "_MAX_KEPT_BYTES", 2 * size + 1)
    writer = convert.PlanWriter()
    for version in (1, 2, 3):
        writer.write(builders.plan(version=version))

    assert [version for _, version, *_ in writer._kept] == [2, 3]
    assert writer._num_bytes == sum(each.ByteSize() for each in writer._kept.values())
