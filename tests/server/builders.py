"""Small valid objects; every argument has a default that makes the rest fit.

Unless told otherwise: one layer of four experts on two ranks of two slots, so that the engine's
start placement is (0, 1, 2, 3) and rank 1 holds experts 2 and 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane.wire import digest_phy2log
from expertplane_server.core import events as ev
from expertplane_server.core.errors import UnavailableError
from expertplane_server.core.group import Group
from expertplane_server.core.parameters import SampleParameters, TriggerParameters
from expertplane_server.core.plan import (
    Balance,
    Decision,
    Evaluation,
    ParkedPlan,
    Plan,
    PlanDraft,
    PlanRef,
    PlanState,
    Reason,
    Request,
    Solution,
    Transfers,
)
from expertplane_server.core.recovered import Recovered
from expertplane_server.core.spec import Deployment, DeploymentSpec, Mode, TopologySpec


if TYPE_CHECKING:
    from expertplane_server.store import Store


NAME = "prod/v3"
HEARTBEAT_S = 5.0
RUN = "run-1"


def topology(
    *, num_nodes: int = 1, ranks_per_node: int = 2, slots_per_rank: int = 2, **ranks: Any
) -> TopologySpec:
    """Return two ranks of two slots by default; `ranks` are masked ones and capacities."""
    return TopologySpec(
        num_nodes=num_nodes, ranks_per_node=ranks_per_node, slots_per_rank=slots_per_rank, **ranks
    )


def spec(
    *,
    window_samples: int = 1,
    min_samples: int = 1,
    cooldown_s: float = 0.0,
    min_gain: float = 0.01,
    safety: float = 2.0,
    max_window_s: float = 600.0,
    deadline_s: float = 10.0,
    min_coverage: float = 0.75,
    **changes: Any,
) -> DeploymentSpec:
    """Return a spec whose windows close with their first sample."""
    return DeploymentSpec(
        **{
            "layer_ids": (3,),
            "num_logical_experts": 4,
            "topology": topology(),
            "trigger": TriggerParameters(
                window_samples=window_samples,
                min_samples=min_samples,
                cooldown_s=cooldown_s,
                min_gain=min_gain,
                safety=safety,
                max_window_s=max_window_s,
            ),
            "samples": SampleParameters(deadline_s=deadline_s, min_coverage=min_coverage),
            **changes,
        }
    )


def deployment(
    wanted: DeploymentSpec | None = None,
    *,
    name: str = NAME,
    generation: int = 1,
    head: int = 0,
    committed: int = 0,
) -> Deployment:
    """Return a deployment as a store would."""
    return Deployment(
        name=name,
        spec=wanted or spec(),
        etag="etag-1",
        generation=generation,
        head=head,
        committed=committed,
    )


def balance(balancedness: float = 0.8) -> Balance:
    """Return a balance of one layer."""
    return Balance(
        balancedness=balancedness,
        mean=balancedness,
        minimum=balancedness,
        per_layer=(balancedness,),
    )


def solution(
    *layers: tuple[int, ...],
    gain: float = 0.25,
    num_logical_experts: int = 4,
    has_incumbent: bool = True,
    **changes: Any,
) -> Solution:
    """Return a solution, one tuple of experts per layer; it gains 150 s per relative gain of 1."""
    phy2log = np.array(layers or ((0, 2, 1, 3),), dtype=np.int32)
    fields: dict[str, Any] = {
        "phy2log": phy2log,
        "digest": digest_phy2log(phy2log),
        "policy": "deepseek",
        "mode": Mode.GLOBAL,
        "seed": 0,
        "num_logical_experts": num_logical_experts,
        "balance": balance(),
        "balance_before": balance(0.6) if has_incumbent else None,
        "gain": gain,
        "gain_s": 150.0 * gain,
        "moved_slots": 2,
        "most_moved_slots": 2,
        "evaluation": Evaluation.IN_SAMPLE,
        "solve_s": 0.001,
    }
    return Solution(**{**fields, **changes})


def transfers() -> Transfers:
    """Return a migration of two experts between the ranks."""
    table = np.array([[0, 2, 2, 1, 0, 2], [0, 1, 1, 2, 0, 2]], dtype=np.int32)
    return Transfers(table=table, total_bytes=88_000_000, estimated_s=0.25)


def draft(
    *layers: tuple[int, ...], name: str = NAME, parent: int = 0, **changes: Any
) -> PlanDraft:
    """Return a draft of a plan."""
    return PlanDraft(
        deployment=name,
        generation=1,
        parent=parent,
        reason=Reason.PUBLISHED,
        solution=solution(*layers, **changes),
    )


def plan(
    *layers: tuple[int, ...],
    version: int = 1,
    state: PlanState = PlanState.COMMITTED,
    name: str = NAME,
) -> Plan:
    """Return a stored plan."""
    return Plan(
        draft=draft(*layers, name=name),
        version=version,
        epoch=1,
        state=state,
        created_at_s=1000.5,
    )


def decision(sequence: int = 1, reason: Reason = Reason.PUBLISHED, **changes: Any) -> Decision:
    """Return a decision of the journal."""
    fields: dict[str, Any] = {
        "epoch": 1,
        "message": "",
        "decided_at_s": 1000.0,
        "num_samples": 16,
        "incumbent": 0,
    }
    return Decision(sequence=sequence, reason=reason, **{**fields, **changes})


def request(name: str = "r1", call: str = "publish prod/v3") -> Request:
    """Return what makes a call repeatable."""
    return Request(name, call)


def parked(participant: str = "a", started: int = 1, digest: str = "d1") -> ParkedPlan:
    """Return a refusal for good; `started` counts the process's starts, as in `hello`."""
    return ParkedPlan(
        participant=participant,
        incarnation=incarnation(1000 * ord(participant[0]) + started),
        digest=digest,
    )


def published(
    store: Store,
    wanted: PlanDraft | None = None,
    *,
    state: PlanState = PlanState.COMMITTED,
    asked: Request | None = None,
    epoch: int | None = None,
    now_s: float = 0.0,
) -> Plan:
    """Publish a plan, in the store's term by default, above whatever its head is."""
    wanted = wanted or draft()
    heads = {each.name: each.head for each in store.deployments()}
    head = heads.get(wanted.deployment, 0)
    return store.publish(
        wanted,
        state=state,
        decision=decision(head + 1),
        expected_head=head,
        epoch=store.epoch if epoch is None else epoch,
        request=asked,
        now_s=now_s,
    )


def store_failed(*, is_refusal: bool = False) -> ev.StoreFailed:
    """Return the failure of a store whose disk is full."""
    return ev.StoreFailed(error=UnavailableError("disk full"), is_refusal=is_refusal)


def read_back(*plans: Plan, stored: Deployment | None = None) -> ev.ReadBack:
    """Return what the store really holds: these plans."""
    versions = [each.version for each in plans]
    newest_first = tuple(sorted(plans, key=lambda plan: plan.version, reverse=True))
    found = stored or deployment(head=max(versions, default=0))
    return ev.ReadBack(Recovered(deployment=found, plans=newest_first))


def ref(of: Plan) -> PlanRef:
    """Return what a participant says that has the plan."""
    return PlanRef(version=of.version, digest=of.digest)


def group(*plans: Plan, wanted: DeploymentSpec | None = None, head: int = 0) -> Group:
    """Return the state machine of a deployment with these stored plans."""
    committed = max((each.version for each in plans), default=0)
    stored = deployment(wanted, head=max(head, committed), committed=committed)
    newest_first = tuple(sorted(plans, key=lambda plan: plan.version, reverse=True))
    recovered = Recovered(deployment=stored, plans=newest_first)
    return Group(recovered, epoch=1, heartbeat_interval_s=HEARTBEAT_S)


def at(monotonic_s: float = 0.0) -> ev.Instant:
    """Return a moment; the wall clock stands 1000 s ahead."""
    return ev.Instant(monotonic_s=monotonic_s, wall_s=1000.0 + monotonic_s)


def incarnation(number: int) -> str:
    """Return a UUID."""
    return f"00000000-0000-4000-8000-{number:012d}"


def hello(
    stream: int = 1,
    participant: str = "a",
    ranks: tuple[int, ...] = (0, 1),
    *,
    started: int = 1,
    **changes: Any,
) -> ev.Hello:
    """Return a Hello that answers for both ranks; `started` counts the process's starts."""
    fields: dict[str, Any] = {
        "stream": stream,
        "participant": participant,
        "ranks": ranks,
        # Other participants, other processes.
        "incarnation": incarnation(1000 * ord(participant[0]) + started),
        "engine_run_id": RUN,
    }
    return ev.Hello(**{**fields, **changes})


def report(
    *samples: tuple[float, ...],
    stream: int = 1,
    sequence: int = 1,
    first_step: int = 0,
    steps_per_sample: int = 1,
    plan_version: int = 0,
    kind: ev.LoadKind = ev.LoadKind.LOGICAL,
    scope: ev.LoadScope = ev.LoadScope.PARTICIPANT,
) -> ev.LoadReport:
    """Return a report on one layer, one tuple of token counts per sample."""
    counts = np.array(samples or ((4, 3, 2, 1),), dtype=np.float64)
    return ev.LoadReport(
        stream=stream,
        sequence=sequence,
        plan_version=plan_version,
        first_step=first_step,
        steps_per_sample=steps_per_sample,
        kind=kind,
        scope=scope,
        counts=counts[:, None, :],
    )


def applied(of: Plan, *, stream: int = 1) -> ev.Ack:
    """Return the news that a participant serves with the plan."""
    return ev.Ack(stream=stream, ref=ref(of), phase=ev.AckPhase.APPLIED)


def nack(version: int, *, stream: int = 1, is_transient: bool = False) -> ev.Nack:
    """Return a refusal of a plan."""
    return ev.Nack(stream=stream, version=version, message="no room", is_transient=is_transient)
