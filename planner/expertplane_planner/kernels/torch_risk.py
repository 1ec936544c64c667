"""The risk-aware packing in torch operations: the same steps on any device, for all rows at once.

Nothing waits for the device, so that every row takes part in every step, also when it has nothing
left to do.

Legend: L layers, E logical experts, N replicas of a row, M packs, K places per pack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch


if TYPE_CHECKING:
    from torch import Tensor


class _Packs(NamedTuple):
    held: Tensor  # [rows, M * K] int64, expert of each place
    load: Tensor  # [rows, M]
    variance: Tensor  # [rows, M]
    cross: Tensor  # [rows, M, E], covariance of a pack's load with an expert's tokens


class _Judge(NamedTuple):
    """How a pack's load is judged, the lower the better."""

    risk: float | Tensor  # or [rows, 1]
    slowness: Tensor  # [rows, M]

    def value(self, load: Tensor, spread: Tensor, slowness: Tensor) -> Tensor:
        """Return what packs of such loads, variances and slowness are worth."""
        return (load + self.risk * spread.clamp(min=0.0).sqrt()) * slowness


class _Experts(NamedTuple):
    """What is known about the experts of each row; `share` is one over their replicas."""

    mean: Tensor  # [rows, E], tokens of one replica
    own: Tensor  # [rows, E], variance of one replica
    share: Tensor  # [rows, E]
    covariance: Tensor  # [L, E, E], of all tokens of two experts
    layer: Tensor  # [rows, 1] int64

    def covariance_of(self, experts: Tensor) -> Tensor:
        """Return the covariance of some experts with all, [rows, n, E], for [rows, n] int64."""
        return self.covariance[self.layer, experts]


def pack_by_risk(
    mean: Tensor,
    covariance: Tensor,
    share: Tensor,
    expert: Tensor,
    order: Tensor,
    slowness: Tensor,
    greedy_risk: Tensor,
    *,
    risk: float,
    max_swaps: int,
    tolerance: float,
) -> tuple[Tensor, Tensor]:
    """See `expertplane_planner.kernels.pack_by_risk`."""
    num_nodes = len(expert) // len(mean)
    num_packs = slowness.shape[1]
    diagonal = covariance.diagonal(dim1=1, dim2=2).to(mean.dtype)
    experts = _Experts(
        mean=(mean * share).repeat_interleave(num_nodes, dim=0),
        own=(diagonal * share * share).repeat_interleave(num_nodes, dim=0),
        share=share.repeat_interleave(num_nodes, dim=0),
        covariance=covariance,
        layer=(torch.arange(len(expert), device=mean.device) // num_nodes).unsqueeze(1),
    )
    judge = _Judge(risk, slowness)
    greedily = _Judge(greedy_risk.unsqueeze(1), slowness)
    packs = _packed(experts, expert.gather(1, order), greedily)
    total = packs.load[:, 0]
    for pack in range(1, num_packs):
        total = total + packs.load[:, pack]
    threshold = (tolerance * (total / num_packs)).unsqueeze(1)
    for _ in range(max_swaps):
        packs = _swapped(experts, packs, judge, threshold)
    return packs.held, judge.value(packs.load, packs.variance, slowness).amax(dim=1)


def _packed(experts: _Experts, items: Tensor, judge: _Judge) -> _Packs:
    num_rows, num_items = items.shape
    num_packs = judge.slowness.shape[1]
    capacity = num_items // num_packs
    packs = _Packs(
        held=torch.full_like(items, -1),  # nobody while a place is free
        load=experts.mean.new_zeros(num_rows, num_packs),
        variance=experts.mean.new_zeros(num_rows, num_packs),
        cross=experts.mean.new_zeros(num_rows, num_packs, experts.mean.shape[1]),
    )
    num_filled = torch.zeros_like(packs.load, dtype=torch.int64)
    for e in items.unsqueeze(2).unbind(1):
        share, own = experts.share.gather(1, e), experts.own.gather(1, e)
        with_e = packs.cross.gather(2, e.unsqueeze(1).expand(-1, num_packs, 1)).squeeze(2)
        spread = packs.variance + 2.0 * with_e * share + own
        added = experts.mean.gather(1, e)
        value = judge.value(packs.load + added, spread, judge.slowness)
        is_full = num_filled == capacity
        value = value.masked_fill(is_full, torch.inf)
        holds = (packs.held.view(num_rows, num_packs, capacity) == e.unsqueeze(1)).sum(dim=2) > 0
        least, free = value.masked_fill(holds, torch.inf).min(dim=1, keepdim=True)
        is_stuck = least.isinf()
        receiver = value.argmin(dim=1, keepdim=True)
        pack_time = packs.load * judge.slowness
        pack_time = pack_time.masked_fill(~is_full | holds, torch.inf)
        place, can_help = _place_to_give_up(experts, packs, pack_time, receiver)
        is_rescued = is_stuck & can_help
        given_up = packs.held.gather(1, place)
        giver = place // capacity
        packs = _changed(experts, packs, giver, given_up.clamp(min=0), is_rescued, sign=-1.0)
        packs = _changed(experts, packs, giver, e, is_rescued, sign=1.0)
        held = packs.held.scatter(1, place, torch.where(is_rescued, e, given_up))
        put = torch.where(is_rescued, given_up, e)
        pack = torch.where(is_stuck, receiver, free)
        held = held.scatter(1, pack * capacity + num_filled.gather(1, pack), put)
        num_filled.scatter_add_(1, pack, torch.ones_like(pack))
        packs = packs._replace(held=held)
        packs = _changed(experts, packs, pack, put, torch.ones_like(is_stuck), sign=1.0)
    return packs


def _place_to_give_up(
    experts: _Experts, packs: _Packs, pack_time: Tensor, receiver: Tensor
) -> tuple[Tensor, Tensor]:
    """Return whose place in a full pack an expert could take, and whether there is one.

    Args:
        experts: What is known about the experts.
        packs: The packs so far.
        pack_time: [rows, M], mean load * slowness, infinite where a pack cannot give.
        receiver: [rows, 1], the pack that gets what another gives up.
    """
    capacity = packs.held.shape[1] // packs.load.shape[1]
    giver_time, giver = pack_time.min(dim=1, keepdim=True)
    step = torch.arange(capacity, device=giver.device)
    places = giver * capacity + step
    others = packs.held.gather(1, places)
    at_receiver = packs.held.gather(1, receiver * capacity + step)
    is_kept = (at_receiver.unsqueeze(1) == others.unsqueeze(2)).sum(dim=2) > 0
    weight = experts.mean.gather(1, others.clamp(min=0)).masked_fill(is_kept, torch.inf)
    least, chosen = weight.min(dim=1, keepdim=True)
    return places.gather(1, chosen), giver_time.isfinite() & least.isfinite()


def _changed(
    experts: _Experts, packs: _Packs, pack: Tensor, e: Tensor, is_meant: Tensor, *, sign: float
) -> _Packs:
    """Return the packs with one expert more, or less, in one pack of each row that is meant."""
    share, own = experts.share.gather(1, e), experts.own.gather(1, e)
    with_e = packs.cross.gather(1, pack.unsqueeze(2).expand(-1, 1, packs.cross.shape[2]))
    with_e = with_e.squeeze(1).gather(1, e)
    old = packs.variance.gather(1, pack)
    new = old + sign * (2.0 * with_e * share) + own
    added = (sign * experts.mean.gather(1, e)).masked_fill(~is_meant, 0.0)
    change = experts.covariance_of(e).to(packs.cross.dtype) * (sign * share).unsqueeze(2)
    change = change.masked_fill(~is_meant.unsqueeze(2), 0.0)
    return packs._replace(
        load=packs.load.scatter_add(1, pack, added),
        variance=packs.variance.scatter(1, pack, torch.where(is_meant, new, old)),
        cross=packs.cross.scatter_add(1, pack.unsqueeze(2).expand_as(change), change),
    )


def _swapped(experts: _Experts, packs: _Packs, judge: _Judge, threshold: Tensor) -> _Packs:
    """Return the packs after one more swap in each row."""
    held, load, variance, cross = packs
    num_rows, num_packs = load.shape
    capacity = held.shape[1] // num_packs
    value = judge.value(load, variance, judge.slowness)
    peak, heavy = value.max(dim=1, keepdim=True)
    places = heavy * capacity + torch.arange(capacity, device=held.device)
    given = held.gather(1, places)  # [rows, K], i below; j runs over all places
    moved, heavy_spread, light_spread = _outcomes(experts, packs, heavy, given)
    by_place = load.repeat_interleave(capacity, dim=1).unsqueeze(2)
    slowness = judge.slowness.repeat_interleave(capacity, dim=1).unsqueeze(2)
    heavy_load = load.gather(1, heavy).unsqueeze(2) - moved
    heavy_slowness = judge.slowness.gather(1, heavy).unsqueeze(2)
    worse = torch.maximum(
        judge.value(heavy_load, heavy_spread, heavy_slowness),
        judge.value(by_place + moved, light_spread, slowness),
    )
    by_pack = held.view(num_rows, num_packs, capacity)
    is_there = (by_pack.unsqueeze(3) == given.view(num_rows, 1, 1, capacity)).sum(dim=2) > 0
    is_here = (given.unsqueeze(1) == held.unsqueeze(2)).sum(dim=2) > 0
    is_barred = is_there.repeat_interleave(capacity, dim=1) | is_here.unsqueeze(2)
    gain = (peak.unsqueeze(2) - worse).masked_fill_(is_barred, -torch.inf)
    best, pair = gain.flatten(1).max(dim=1, keepdim=True)
    is_better = best > threshold
    to, at = pair // capacity, pair % capacity
    light = to // capacity
    i, j = given.gather(1, at), held.gather(1, to)

    def chosen(outcome: Tensor) -> Tensor:
        return outcome.flatten(1).gather(1, pair)

    step = chosen(moved).masked_fill(~is_better, 0.0)
    load = load.scatter_add(1, heavy, -step).scatter_add(1, light, step)
    for pack, spread in ((heavy, heavy_spread), (light, light_spread)):
        new = torch.where(is_better, chosen(spread), variance.gather(1, pack))
        variance = variance.scatter(1, pack, new)
    both = experts.covariance_of(torch.cat([i, j], dim=1)).to(cross.dtype)
    both = both * experts.share.gather(1, torch.cat([i, j], dim=1)).unsqueeze(2)
    change = (both[:, :1] - both[:, 1:]).masked_fill(~is_better.unsqueeze(2), 0.0)
    for pack, signed in ((heavy, -change), (light, change)):
        cross = cross.scatter_add(1, pack.unsqueeze(2).expand_as(change), signed)
    positions = torch.cat([places.gather(1, at), to], dim=1)
    swapped = torch.where(is_better, torch.cat([j, i], dim=1), held.gather(1, positions))
    return _Packs(held.scatter(1, positions, swapped), load, variance, cross)


def _outcomes(
    experts: _Experts, packs: _Packs, heavy: Tensor, given: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what each swap moves and leaves: tokens, variance of the heavy and the other pack.

    Returns:
        Three tensors [rows, M * K, K], by place of the item taken and of the item given.
    """
    held, load, variance, cross = packs
    num_packs = load.shape[1]
    capacity = held.shape[1] // num_packs
    num_experts = cross.shape[2]
    share_i, share_j = experts.share.gather(1, given), experts.share.gather(1, held)
    own_i = experts.own.gather(1, given).unsqueeze(1)
    own_j = experts.own.gather(1, held).unsqueeze(2)
    mean_i, mean_j = experts.mean.gather(1, given), experts.mean.gather(1, held)
    moved = mean_i.unsqueeze(1) - mean_j.unsqueeze(2)
    both = experts.covariance_of(given).to(cross.dtype)
    both = both.gather(2, held.unsqueeze(1).expand(-1, capacity, -1)).transpose(1, 2)
    both = 2.0 * both * share_i.unsqueeze(1) * share_j.unsqueeze(2)
    cross_heavy = cross.gather(1, heavy.unsqueeze(2).expand(-1, 1, num_experts)).squeeze(1)
    heavy_i = (2.0 * cross_heavy.gather(1, given) * share_i).unsqueeze(1)
    heavy_j = (2.0 * cross_heavy.gather(1, held) * share_j).unsqueeze(2)
    light_i = cross.gather(2, given.unsqueeze(1).expand(-1, num_packs, -1)) * 2.0
    light_i = (light_i * share_i.unsqueeze(1)).repeat_interleave(capacity, dim=1)
    pack_of = torch.arange(held.shape[1], device=held.device) // capacity
    light_j = cross.flatten(1).gather(1, pack_of * num_experts + held)
    light_j = (2.0 * light_j * share_j).unsqueeze(2)
    heavy_variance = variance.gather(1, heavy).unsqueeze(2)
    heavy_spread = heavy_variance - heavy_i + own_i + heavy_j - both + own_j
    light_variance = variance.repeat_interleave(capacity, dim=1).unsqueeze(2)
    light_spread = light_variance + light_i + own_i - light_j - both + own_j
    return moved, heavy_spread, light_spread
