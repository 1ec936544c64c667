"""Nouns to what a database holds, and back."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np

from expertplane_server.core.plan import (
    Balance,
    Evaluation,
    Plan,
    PlanDraft,
    PlanState,
    Reason,
    Solution,
)
from expertplane_server.core.spec import (
    DeploymentSpec,
    Mode,
    PolicyChoice,
    RolloutMode,
    SampleParameters,
    TopologySpec,
    TriggerParameters,
)


# Logical experts stay below 4096 and masked slots hold -1, so 16 bits hold every entry.
MAP_DTYPE = np.dtype("<i2")


def spec_to_json(spec: DeploymentSpec) -> str:
    """Writes a spec with its defaults spelt out, so that a later release keeps their values."""
    return json.dumps(asdict(spec), sort_keys=True)


def spec_from_json(text: str) -> DeploymentSpec:
    """Reads what `spec_to_json` wrote, in this release or an earlier one."""
    fields = json.loads(text)
    policy = fields.pop("policy")
    return DeploymentSpec(
        layer_ids=tuple(fields.pop("layer_ids")),
        topology=TopologySpec(**fields.pop("topology")),
        policy=PolicyChoice(**policy | {"mode": Mode(policy["mode"])}),
        trigger=TriggerParameters(**fields.pop("trigger")),
        samples=SampleParameters(**fields.pop("samples")),
        rollout_mode=RolloutMode(fields.pop("rollout_mode")),
        **fields,
    )


def provenance_to_json(draft: PlanDraft) -> str:
    """Writes everything about a draft but its map and what has a column of its own."""
    solution = draft.solution
    return json.dumps(
        {
            "reason": draft.reason,
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
        },
        sort_keys=True,
    )


def plan_from_row(row: dict[str, Any]) -> Plan:
    """Builds a plan from a database row; the caller checks the digest."""
    told = json.loads(row["provenance"])
    shape = (row["num_layers"], row["num_slots"])
    phy2log = np.frombuffer(row["phy2log"], dtype=MAP_DTYPE).reshape(shape).astype(np.int32)
    phy2log.flags.writeable = False
    before = told["balance_before"]
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
        evaluation=Evaluation(told["evaluation"]),
        solve_s=told["solve_s"],
        spill=told.get("spill", 0),
    )
    draft = PlanDraft(
        deployment=row["deployment"],
        generation=row["generation"],
        parent=row["parent"],
        reason=Reason(told["reason"]),
        solution=solution,
    )
    return Plan(
        draft=draft,
        version=row["version"],
        epoch=row["epoch"],
        state=PlanState(row["state"]),
        created_at_s=row["created_at_s"],
    )


def _balance(fields: dict[str, Any]) -> Balance:
    """Reads a balance report."""
    return Balance(
        balancedness=fields["balancedness"],
        mean=fields["mean"],
        minimum=fields["minimum"],
        per_layer=tuple(fields["per_layer"]),
    )
