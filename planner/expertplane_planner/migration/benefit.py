"""What a plan gains over the placement in force, and what getting there costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertplane_planner.balance import rank_load
from expertplane_planner.model.benefit import Basis, NetBenefit
from expertplane_planner.model.masking import active_slots


if TYPE_CHECKING:
    from torch import Tensor

    from expertplane_planner.model.benefit import BenefitTerms, Necessity
    from expertplane_planner.model.load import ExpertLoad
    from expertplane_planner.model.placement import Placement
    from expertplane_planner.model.transfers import TransferSchedule


def held_out_maximum(placement: Placement, held_out: ExpertLoad) -> float:
    """Return the sum over layers of the maximum rank load, mean over samples, in tokens.

    Args:
        placement: What to judge.
        held_out: Samples that no plan was made from.
    """
    tokens: Tensor = rank_load(placement, held_out.samples)
    return float(tokens.amax(dim=-1).sum(dim=-1).mean())


def most_received(placement: Placement, incumbent: Placement) -> int:
    """Return the most experts that one rank must receive, summed over layers.

    Layers migrate one after the other, and a rank receives one expert at a time, so that no
    migration has fewer rounds.

    Args:
        placement: Where to get.
        incumbent: What the ranks hold now.
    """
    per_rank = placement.topology.slots_per_rank
    new, old = placement.active_phy2log(), incumbent.phy2log_on(placement.topology)
    slots = active_slots(placement.topology)
    new = new.cpu().view(len(new), -1, per_rank)
    held = old.cpu()[:, slots].view_as(new)
    is_kept = (new.unsqueeze(3) == held.unsqueeze(2)).any(dim=3)
    return int((~is_kept).sum(dim=2).amax(dim=1).sum())


def net_benefit(
    maximum_before: float,
    maximum_after: float,
    transfers: TransferSchedule,
    *,
    moved_slots: int,
    basis: Basis,
    terms: BenefitTerms,
    necessity: Necessity | None = None,
) -> NetBenefit:
    """Return gain and cost of a plan with every term.

    Args:
        maximum_before: Sum over layers of the maximum rank load of a step now, in tokens.
        maximum_after: The same under the plan.
        transfers: The copies that lead there.
        moved_slots: Slots whose rank must fetch an expert.
        basis: What the maxima were measured on.
        terms: What time is worth and what moving costs.
        necessity: Why the placement in force cannot stay; None if it can.
    """
    migration_s = (
        transfers.estimated_s(terms.bytes_per_expert, terms.link_speed)
        if terms.bytes_per_expert
        else 0.0
    )
    return NetBenefit(
        maximum_before=maximum_before,
        maximum_after=maximum_after,
        moved_slots=moved_slots,
        migration_s=migration_s,
        basis=basis,
        terms=terms,
        necessity=necessity,
    )
