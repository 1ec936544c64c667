"""What placements are worth against each other, when one of them is in force."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .balance import rank_load
from .migration.benefit import held_out_maximum, most_received
from .migration.search import Terrain
from .model.benefit import Basis, BenefitTerms
from .model.masking import compact
from .policies.base import ImprovingPolicy
from .stages.risk import expected_maximum


if TYPE_CHECKING:
    from torch import Tensor

    from .model.incumbent import Incumbent
    from .model.placement import Placement
    from .policies.base import PlacementRequest, Policy


_PROHIBITIVE = 1e6
"""Price, in mean rank loads, that no move can gain: there are fewer ranks than that."""


class Judge:
    """Judges placements of one request against its incumbent."""

    def __init__(self, policy: Policy, request: PlacementRequest, incumbent: Incumbent) -> None:
        self._policy, self._request, self._incumbent = policy, request, incumbent

    def peaks(self, placement: Placement) -> Tensor:
        """Return what the policy minimises in each layer, [num_layers] float64, on the host.

        Args:
            placement: On the active ranks of the plan to be made.
        """
        if isinstance(self._policy, ImprovingPolicy):
            return self._policy.peaks(self._request, placement.active_phy2log())
        return rank_load(placement, self._request.load.total()).amax(dim=1).cpu()

    def maxima(self, before: Placement, after: Placement) -> tuple[float, float, Basis]:
        """Return the summed maximum rank load of both, in tokens of a step, and its basis.

        On samples that were held out where there are any, else on the prediction.
        """
        held_out = self._incumbent.held_out
        if held_out is None:
            return self._predicted(before), self._predicted(after), Basis.PREDICTED
        old, new = (held_out_maximum(each, held_out) for each in (before, after))
        return old, new, Basis.HELD_OUT

    def worth_s(self, placement: Placement, serving: Placement) -> float:
        """Return what a candidate gains net, in seconds, without working out its transfers.

        All ranks receive at once, one expert at a time, at the speed between nodes. Experts of
        unknown size are taken for typical ones: of equal gains, the one that moves less wins.

        Args:
            placement: The candidate.
            serving: What serves now.
        """
        terms = self._incumbent.terms
        before, after, _ = self.maxima(serving, placement)
        gain = 1.0 - after / before if before > 0 else 0.0
        size = terms.bytes_per_expert or BenefitTerms().bytes_per_expert
        round_s = size / terms.link_speed.cross_node_bytes_per_s
        num_rounds = most_received(placement, self._incumbent.placement)
        cost_s = terms.stall_fraction * round_s * num_rounds
        return terms.horizon_s * terms.moe_time_fraction * gain - terms.safety * cost_s

    def price(self) -> float:
        """Return what a moved slot costs, as a share of a layer's mean rank load.

        As if all ranks received at once and between nodes; layers being about alike.
        """
        terms, request = self._incumbent.terms, self._request
        worth_s = terms.horizon_s * terms.moe_time_fraction
        speed = terms.link_speed.cross_node_bytes_per_s * request.topology.num_ranks
        cost_s = terms.safety * terms.stall_fraction * terms.bytes_per_expert / speed
        # A plan that serves no time is worth no move, whatever moves cost.
        price = cost_s / worth_s * request.load.num_layers if worth_s > 0 else _PROHIBITIVE
        return min(price, _PROHIBITIVE)

    def _predicted(self, placement: Placement) -> float:
        prediction, topology = self._request.prediction, compact(placement.topology)
        assert prediction is not None
        terrain = Terrain.of(prediction, topology, None)
        peaks = terrain.peaks(placement.active_phy2log(), expected_maximum(topology.num_ranks))
        # The search knows capacities up to a factor, in which two topologies may differ.
        return float(peaks.sum()) * topology.num_ranks / sum(topology.capacities)
