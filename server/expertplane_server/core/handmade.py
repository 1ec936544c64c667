"""Placements that no solver made: an operator's own, earlier content, parts of a chain."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from expertplane.wire.digest import digest_phy2log
from expertplane_server.core.placements import experts_held
from expertplane_server.core.plan import Balance, Evaluation, Solution
from expertplane_server.core.scoring import balance, fetched_slots
from expertplane_server.core.spec import Mode


if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from expertplane_server.core.spec import DeploymentSpec


OPERATOR = "operator"
"""Stands for the policy of an operator's own placement."""
START = "start"
"""Stands for the policy of the start placement."""
_UNKNOWN = Balance(balancedness=0.0, mean=0.0, minimum=0.0, per_layer=())


def describe(
    phy2log: np.ndarray[Any, Any],
    in_force: np.ndarray[Any, Any],
    spec: DeploymentSpec,
    samples: Sequence[np.ndarray[Any, Any]],
    *,
    origin: Solution | None = None,
    policy: str = OPERATOR,
) -> Solution:
    """Returns a placement with its figures against the one in force.

    Args:
        phy2log: [L, P], the placement.
        in_force: [L, P], what the ranks serve with.
        spec: of the deployment.
        samples: the latest load, K times [L, E] tokens; may be empty.
        origin: where the content comes from; its policy is kept.
        policy: what to tell where there is no origin.
    """
    moved = fetched_slots(in_force, phy2log, spec.topology.num_ranks).sum(axis=1)
    after = balance(phy2log, samples, spec.topology) if samples else _UNKNOWN
    # A placement that has lost experts carries no load as a whole, so it has no balance.
    is_whole = experts_held(in_force, spec.num_logical_experts).all()
    before = balance(in_force, samples, spec.topology) if samples and is_whole else None
    gain = 0.0
    if before is not None and after.balancedness > 0.0:
        gain = 1.0 - before.balancedness / after.balancedness
    trigger = spec.trigger
    figures: dict[str, Any] = {
        "phy2log": phy2log,
        "digest": digest_phy2log(phy2log),
        "balance": after,
        "balance_before": before,
        "gain": gain,
        "gain_s": gain * trigger.horizon_s * trigger.moe_time_fraction,
        "cost_s": 0.0,
        "moved_slots": int(moved.sum()),
        "most_moved_slots": int(moved.max(initial=0)),
        "evaluation": Evaluation.IN_SAMPLE if samples else None,
        "solve_s": 0.0,
        "transfers": None,
        "is_drifting": False,
        "necessity": None,
    }
    if origin is not None:
        return replace(origin, **figures)
    return Solution(
        policy=policy,
        mode=Mode.GLOBAL,
        seed=0,
        num_logical_experts=spec.num_logical_experts,
        **figures,
    )
