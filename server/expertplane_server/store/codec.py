"""Nouns to what a database holds, and back."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np

from expertplane_server.core.parameters import (
    ForecastParameters,
    MigrationParameters,
    PlacementRules,
    RolloutParameters,
    SampleParameters,
    TriggerParameters,
)
from expertplane_server.core.plan import (
    Balance,
    Decision,
    Evaluation,
    Necessity,
    Plan,
    PlanDraft,
    PlanState,
    Reason,
    Solution,
    Transfers,
)
from expertplane_server.core.spec import (
    DeploymentSpec,
    Mode,
    PolicyChoice,
    RolloutMode,
    TopologySpec,
)


# Logical experts stay below 4096 and masked slots hold -1, so 16 bits hold every entry.
_MAP_DTYPE = np.dtype("<i2")
# Slots and rounds, the largest entries, stay below 65536.
_TRANSFER_DTYPE = np.dtype("<u2")
_TRANSFER_COLUMNS = 6


def spec_to_json(spec: DeploymentSpec) -> str:
    """Writes a spec with its defaults spelt out, so that a later release keeps their values."""
    return json.dumps(asdict(spec), sort_keys=True)


def spec_from_json(text: str) -> DeploymentSpec:
    """Reads what `spec_to_json` wrote, in this release or an earlier one.

    What an earlier release did not know takes its default.
    """
    fields = json.loads(text)
    policy = fields.pop("policy")
    policy["mode"] = Mode(policy["mode"])
    policy["parameters"] = tuple(map(tuple, policy.get("parameters", ())))
    return DeploymentSpec(
        layer_ids=tuple(fields.pop("layer_ids")),
        topology=_topology(fields.pop("topology")),
        policy=PolicyChoice(**policy),
        trigger=TriggerParameters(**fields.pop("trigger")),
        samples=SampleParameters(**fields.pop("samples")),
        rules=PlacementRules(**fields.pop("rules", {})),
        forecast=ForecastParameters(**fields.pop("forecast", {})),
        migration=MigrationParameters(**fields.pop("migration", {})),
        rollout_mode=RolloutMode(fields.pop("rollout_mode")),
        rollout=RolloutParameters(**fields.pop("rollout", {})),
        **fields,
    )


def _topology(fields: dict[str, Any]) -> TopologySpec:
    """Reads a topology."""
    masked, capacities = (fields.pop(name, ()) for name in ("masked_ranks", "rank_capacities"))
    return TopologySpec(**fields, masked_ranks=tuple(masked), rank_capacities=tuple(capacities))


def _provenance_to_json(draft: PlanDraft) -> str:
    """Writes everything about a draft but its map and what has a column of its own."""
    solution = draft.solution
    return json.dumps(
        {
            "reason": draft.reason,
            "comment": draft.comment,
            "policy": solution.policy,
            "mode": solution.mode,
            "seed": solution.seed,
            "balance": asdict(solution.balance),
            "balance_before": asdict(solution.balance_before) if solution.balance_before else None,
            "gain": solution.gain,
            "moved_slots": solution.moved_slots,
            "evaluation": solution.evaluation,
            "solve_s": solution.solve_s,
            "spill": solution.spill,
            "parameters": solution.parameters,
            "gain_s": solution.gain_s,
            "cost_s": solution.cost_s,
            "most_moved_slots": solution.most_moved_slots,
            "transfers": _transfer_totals(solution.transfers),
            "is_drifting": solution.is_drifting,
            "necessity": solution.necessity,
        },
        sort_keys=True,
    )


def _transfer_totals(transfers: Transfers | None) -> dict[str, Any] | None:
    """Returns what is told of a migration beside its table."""
    if transfers is None:
        return None
    return {"total_bytes": transfers.total_bytes, "estimated_s": transfers.estimated_s}


def _transfers_to_blob(transfers: Transfers | None) -> bytes | None:
    """Writes the table of a migration."""
    return None if transfers is None else transfers.table.astype(_TRANSFER_DTYPE).tobytes()


def _transfers(totals: dict[str, Any] | None, blob: bytes | None) -> Transfers | None:
    """Reads a migration."""
    if totals is None or blob is None:
        return None
    table = np.frombuffer(blob, dtype=_TRANSFER_DTYPE).reshape(-1, _TRANSFER_COLUMNS)
    return Transfers(table=table.astype(np.int32), **totals)


def plan_to_row(plan: Plan) -> dict[str, Any]:
    """Writes a plan as a database row."""
    draft, solution = plan.draft, plan.draft.solution
    num_layers, num_slots = solution.phy2log.shape
    return {
        "deployment": draft.deployment,
        "version": plan.version,
        "epoch": plan.epoch,
        "generation": draft.generation,
        "parent": draft.parent,
        "state": plan.state,
        "digest": solution.digest,
        "num_layers": num_layers,
        "num_slots": num_slots,
        "num_logical_experts": solution.num_logical_experts,
        "phy2log": np.ascontiguousarray(solution.phy2log, dtype=_MAP_DTYPE).tobytes(),
        "provenance": _provenance_to_json(draft),
        "created_at_s": plan.created_at_s,
        "transfers": _transfers_to_blob(solution.transfers),
    }


def plan_from_row(row: dict[str, Any]) -> Plan:
    """Builds a plan from a database row; the caller checks the digest."""
    told = json.loads(row["provenance"])
    shape = (row["num_layers"], row["num_slots"])
    phy2log = np.frombuffer(row["phy2log"], dtype=_MAP_DTYPE).reshape(shape).astype(np.int32)
    phy2log.flags.writeable = False
    before, necessity = told["balance_before"], told.get("necessity")
    solution = Solution(
        phy2log=phy2log,
        digest=row["digest"],
        policy=told["policy"],
        mode=Mode(told["mode"]),
        seed=told["seed"],
        num_logical_experts=row["num_logical_experts"],
        balance=_balance(told["balance"]),
        balance_before=_balance(before) if before is not None else None,
        gain=told["gain"],
        moved_slots=told["moved_slots"],
        evaluation=_evaluation(told["evaluation"]),
        solve_s=told["solve_s"],
        # What an earlier release did not write takes its default.
        spill=told.get("spill", 0),
        parameters=tuple((name, value) for name, value in told.get("parameters", ())),
        gain_s=told.get("gain_s", 0.0),
        cost_s=told.get("cost_s", 0.0),
        most_moved_slots=told.get("most_moved_slots", 0),
        transfers=_transfers(told.get("transfers"), row["transfers"]),
        is_drifting=told.get("is_drifting", False),
        necessity=Necessity(necessity) if necessity is not None else None,
    )
    draft = PlanDraft(
        deployment=row["deployment"],
        generation=row["generation"],
        parent=row["parent"],
        reason=Reason(told["reason"]),
        solution=solution,
        comment=told.get("comment", ""),
    )
    return Plan(
        draft=draft,
        version=row["version"],
        epoch=row["epoch"],
        state=PlanState(row["state"]),
        created_at_s=row["created_at_s"],
    )


def decision_to_json(decision: Decision) -> str:
    """Writes a decision."""
    return json.dumps(asdict(decision), sort_keys=True)


def decision_from_json(text: str) -> Decision:
    """Reads what `decision_to_json` wrote, in this release or an earlier one."""
    fields = json.loads(text)
    reason, evaluation = Reason(fields.pop("reason")), fields.pop("evaluation", None)
    return Decision(**fields, reason=reason, evaluation=_evaluation(evaluation))


def _evaluation(value: str | None) -> Evaluation | None:
    """Reads what figures were measured on."""
    return Evaluation(value) if value is not None else None


def _balance(fields: dict[str, Any]) -> Balance:
    """Reads a balance report."""
    return Balance(
        balancedness=fields["balancedness"],
        mean=fields["mean"],
        minimum=fields["minimum"],
        per_layer=tuple(fields["per_layer"]),
    )
