"""From a placement in force to a better one: repair, candidates, and which of them is worth most.

A policy that can (`ImprovingPolicy`) goes on from what ranks hold, move by move. Against that
stands its plan from scratch, relabelled. Layers that a plan would make no better keep what they
have. The candidate of the greater net benefit wins.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from .batching import Improving, Placing
from .errors import InvalidInputError, InvalidPlacementError, InvalidTopologyError
from .forecast import FactoredCovariance
from .judging import Judge
from .migration import relabel, schedule_transfers, settle
from .migration.benefit import net_benefit
from .migration.repair import repair
from .model.benefit import Necessity
from .model.budget import MoveBudget
from .model.comparable import check_same_machine
from .model.homes import foreign_replicas, home_of_experts
from .model.masking import active_slots, expand
from .model.placement import Placement
from .placing import checked_placement, with_prediction
from .policies.base import Departure, Improvement, ImprovingPolicy


if TYPE_CHECKING:
    from torch import Tensor

    from .batching import Flow
    from .model.benefit import NetBenefit
    from .model.incumbent import Incumbent
    from .model.load import ExpertLoad
    from .model.topology import Topology
    from .model.transfers import TransferSchedule
    from .policies.base import PlacementRequest, Policy


_MUCH = 0.05
"""Share of the summed peaks beyond which a plan from scratch is tried as well. On traffic that
drifts, the search found 2 to 4 % and its plans scored as those from scratch did; after an abrupt
switch it found a fifth, and a plan from scratch was better out of sample."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replan:
    """A placement, how to get there, and what that is worth."""

    placement: Placement
    """Where to get."""

    transfers: TransferSchedule
    """The copies that lead there."""

    benefit: NetBenefit
    """What that gains and costs."""

    moved_slots: tuple[int, ...]
    """Of each layer."""


def replan(
    policy: Policy, request: PlacementRequest, topology: Topology, incumbent: Incumbent
) -> Flow[Replan]:
    """Return the best placement within the budget, asking the policy on the way.

    Where the placement in force lost experts with a rank, or breaks a rule of the engine, it is
    repaired first; where it breaks the mode, a plan from scratch takes its place. Both are done
    whatever the budget, and a repair counts against it; so does filling the slots of a rank that
    is back. Otherwise no layer gets what the policy itself finds worse than what it has.

    Args:
        policy: Who plans.
        request: What to place and where; without masked ranks.
        topology: The same with masked ranks.
        incumbent: The placement in force, and what may be spent to leave it.

    Raises:
        InvalidInputError: The samples to judge by are of other layers or experts.
        InvalidPlacementError: The placement in force is of other layers, experts, nodes, ranks or
            slots.
    """
    replanning = _Replanning(policy, _with_dense_prediction(request), topology, incumbent)
    return (yield from replanning.best())


class _Replanning:
    """One re-plan: holds what all its steps need."""

    def __init__(
        self, policy: Policy, request: PlacementRequest, topology: Topology, incumbent: Incumbent
    ) -> None:
        self._policy, self._request = policy, request
        self._topology, self._incumbent = topology, incumbent
        self._in_force = incumbent.placement
        _check_about_the_same(incumbent, request.load, topology)
        left = self._in_force.phy2log_on(topology).to(request.load.samples.device)
        self._origin = left[:, active_slots(topology, left.device)]
        self._serving = self._what_serves(left)
        self._judge = Judge(policy, request, incumbent)

    def best(self) -> Flow[Replan]:
        """Return the candidate of the greatest net benefit; of equals, the first."""
        departure, serving = self._departure(), self._serving
        necessity = self._necessity(departure)
        if departure is None:
            scratch = yield from self._from_scratch(None)
            return self._priced(scratch, serving or scratch, necessity)
        start = self._placement(departure.start)
        before = serving or start
        chosen = yield from self._chosen(departure, start, before)
        return self._priced(chosen, before, necessity)

    def _necessity(self, departure: Departure | None) -> Necessity | None:
        """Return why the placement in force cannot stay."""
        if self._serving is None:
            return Necessity.LOST_EXPERTS
        if not self._request.rules.accept(self._serving):
            return Necessity.ENGINE_RULES
        return Necessity.MODE if departure is None else None

    def _chosen(
        self, departure: Departure, start: Placement, before: Placement
    ) -> Flow[Placement]:
        """Return the candidate that gains most net over what serves now."""
        candidates = []
        if isinstance(self._policy, ImprovingPolicy):
            candidates.append((yield from self._improved(self._policy, departure)))
        if not candidates or (
            self._is_generous() and self._has_much_changed(candidates[0], start)
        ):
            candidates.append((yield from self._from_scratch(departure)))
        if len(candidates) == 1:
            return candidates[0]
        worth = [self._judge.worth_s(candidate, before) for candidate in candidates]
        return candidates[worth.index(max(worth))]

    def _departure(self) -> Departure | None:
        """Return where to set out from; None where the mode forbids what is in force."""
        request = self._request
        assert request.prediction is not None
        try:
            home = self._homes_held()
            start = repair(
                self._origin, request.prediction.mean, request.topology, request.rules, home
            )
            if home is not None:
                compact = Placement(start, request.load.num_logical_experts, request.topology)
                foreign = foreign_replicas(compact, request.num_expert_groups)
                home = home_of_experts(compact, request.num_expert_groups)
                if int(foreign.max()) > request.spill:
                    return None
        except InvalidPlacementError:
            return None
        return Departure(start=start, origin=self._origin, home=home)

    def _what_serves(self, left: Tensor) -> Placement | None:
        """Return what is in force on the ranks that are there before and after.

        Args:
            left: [num_layers, num_slots] int64, what ranks hold.

        Returns:
            A placement, or None where experts were lost.
        """
        masked = {*self._in_force.topology.masked_ranks, *self._topology.masked_ranks}
        num_experts = self._request.load.num_logical_experts
        try:
            topology = replace(self._topology, masked_ranks=tuple(sorted(masked)))
            return Placement(left, num_experts, topology)
        except (InvalidPlacementError, InvalidTopologyError):
            return None

    def _homes_held(self) -> Tensor | None:
        """Return each expert's node, as far as one can tell while experts may be missing."""
        request, topology = self._request, self._request.topology
        if not request.mode.is_by_node:
            return None
        num_experts, num_groups = request.load.num_logical_experts, request.num_expert_groups
        node = torch.arange(topology.num_slots) // topology.slots_per_node
        held = torch.zeros(len(self._origin), num_experts + 1, topology.num_nodes)
        slots = torch.where(self._origin < 0, num_experts, self._origin).cpu()
        held[torch.arange(len(slots)).unsqueeze(1), slots, node] = 1.0
        members = held[:, :num_experts].reshape(len(held), num_groups, -1, topology.num_nodes)
        num_held, home = members.sum(dim=2).max(dim=2)
        # Groups that were lost with their node go where the fewest groups are.
        for layer, group in (num_held == 0).nonzero().tolist():
            settled = home[layer][num_held[layer] > 0]
            home[layer, group] = settled.bincount(minlength=topology.num_nodes).argmin()
            num_held[layer, group] = 1
        per_group = num_experts // num_groups
        return home.repeat_interleave(per_group, dim=1).to(self._origin.device)

    def _improved(self, policy: ImprovingPolicy, departure: Departure) -> Flow[Placement]:
        case = Improvement(
            request=self._request,
            departure=departure,
            budget=self._incumbent.budget,
            price=self._judge.price(),
        )
        phy2log = yield Improving(policy, case)
        return self._adopted(phy2log, departure.start, MoveBudget())

    def _from_scratch(self, departure: Departure | None) -> Flow[Placement]:
        phy2log = yield Placing(self._policy, self._request)
        placement = relabel(
            checked_placement(phy2log, self._request, self._topology),
            self._in_force,
            by_node=self._request.mode.is_by_node,
        )
        if departure is None:
            return placement
        budget = self._incumbent.budget
        return self._adopted(placement.active_phy2log(), departure.start, budget)

    def _adopted(self, phy2log: Tensor, start: Tensor, budget: MoveBudget) -> Placement:
        """Return the start with those layers that are better, and that the budget allows."""
        old, new = self._placement(start), self._placement(phy2log)
        gain = self._judge.peaks(old) - self._judge.peaks(new)
        moved = new.moved_slots(self._in_force).cpu()
        kept = old.moved_slots(self._in_force).cpu()
        is_taken = gain > 0
        if budget.slots_per_layer is not None:
            is_taken &= moved <= budget.slots_per_layer
        if budget.total_slots is not None:
            left = budget.total_slots - int(kept.sum())
            cost = moved - kept
            rate = gain / cost.clamp(min=1)
            for layer in rate.argsort(descending=True, stable=True).tolist():
                if is_taken[layer] and cost[layer] <= left:
                    left -= int(cost[layer])
                else:
                    is_taken[layer] = False
        is_taken = is_taken.to(phy2log.device).unsqueeze(1)
        return self._placement(torch.where(is_taken, phy2log, start))

    def _has_much_changed(self, improved: Placement, start: Placement) -> bool:
        """Whether the search found so much to gain that a plan from scratch may find more."""
        before, after = (float(self._judge.peaks(each).sum()) for each in (start, improved))
        return after < (1.0 - _MUCH) * before

    def _priced(
        self, placement: Placement, serving: Placement, necessity: Necessity | None
    ) -> Replan:
        # The search leaves a returning expert in another slot of its rank; here it goes home.
        placement = settle(placement, self._in_force)
        before, after, basis = self._judge.maxima(serving, placement)
        moved = placement.moved_slots(self._in_force)
        transfers = schedule_transfers(placement, self._in_force)
        benefit = net_benefit(
            before,
            after,
            transfers,
            moved_slots=int(moved.sum()),
            basis=basis,
            terms=self._incumbent.terms,
            necessity=necessity,
        )
        return Replan(
            placement=placement,
            transfers=transfers,
            benefit=benefit,
            moved_slots=tuple(moved.tolist()),
        )

    def _is_generous(self) -> bool:
        """Whether the budget has room for a plan from scratch, which moves most slots."""
        budget, slots = self._incumbent.budget, self._request.topology.num_slots
        per_layer = budget.slots_per_layer is None or 2 * budget.slots_per_layer >= slots
        total = slots * self._request.load.num_layers
        return per_layer and (budget.total_slots is None or 2 * budget.total_slots >= total)

    def _placement(self, phy2log: Tensor) -> Placement:
        full = expand(phy2log, self._topology)
        return Placement(full, self._request.load.num_logical_experts, self._topology)


def _check_about_the_same(incumbent: Incumbent, load: ExpertLoad, topology: Topology) -> None:
    """Check that an incumbent and its samples are of what is to be planned."""
    check_same_machine(topology, incumbent.placement.topology, field="incumbent")
    expected = (load.num_layers, load.num_logical_experts)
    placement, held_out = incumbent.placement, incumbent.held_out
    found = (placement.num_layers, placement.num_logical_experts)
    if found != expected:
        raise InvalidPlacementError(
            "incumbent",
            f"Expected an incumbent of {expected[0]} layers and {expected[1]} experts, "
            f"got {found[0]} and {found[1]}.",
        )
    if held_out is not None and (held_out.num_layers, held_out.num_logical_experts) != expected:
        raise InvalidInputError(
            "incumbent.held_out",
            f"Expected samples of {expected[0]} layers and {expected[1]} experts, "
            f"got {held_out.num_layers} and {held_out.num_logical_experts}.",
        )


def _with_dense_prediction(request: PlacementRequest) -> PlacementRequest:
    """Return the request with a dense prediction.

    Every candidate is judged by it several times, and a factored one would be multiplied out each
    time.

    Raises:
        InvalidInputError: It does not fit into memory.
    """
    request = with_prediction(request)
    prediction = request.prediction
    if prediction is None or not isinstance(prediction.covariance, FactoredCovariance):
        return request
    try:
        dense = replace(prediction, covariance=prediction.dense_covariance())
    except InvalidInputError as error:
        raise InvalidInputError("prediction", error.message) from error
    return replace(request, prediction=dense)
