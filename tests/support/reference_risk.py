"""The risk-aware packing written the slow, obvious way: every pack judged from scratch."""

from __future__ import annotations

import math
from itertools import product


class Experts:
    """What is known about the experts of a layer."""

    def __init__(
        self,
        mean: list[float],
        covariance: list[list[float]],
        counts: list[int],
        risk: float,
        slowness: list[float] | None = None,
    ) -> None:
        self.mean, self.covariance, self.counts, self.risk = mean, covariance, counts, risk
        self.slowness = slowness

    def load(self, pack: list[int]) -> float:
        """Return the expected load of a pack of experts."""
        return math.fsum(self.mean[e] / self.counts[e] for e in pack)

    def time(self, pack: list[int], p: int) -> float:
        """Return the expected load of a pack of experts as pack number p, times its slowness."""
        return self.load(pack) * (self.slowness[p] if self.slowness else 1.0)

    def value(self, pack: list[int], p: int) -> float:
        """Return (mean + risk * standard deviation) * slowness of a pack as pack number p."""
        variance = math.fsum(
            self.covariance[e][f] / self.counts[e] / self.counts[f]
            for e, f in product(pack, repeat=2)
        )
        value = self.load(pack) + self.risk * math.sqrt(max(variance, 0.0))
        return value * (self.slowness[p] if self.slowness else 1.0)


def pack_by_risk(
    experts: Experts,
    expert: list[int],
    weight: list[float],
    num_packs: int,
    *,
    max_swaps: int,
    tolerance: float,
) -> list[int]:
    """Return the experts of one row pack by pack."""
    capacity = len(expert) // num_packs
    packs: list[list[int]] = [[] for _ in range(num_packs)]
    for item in sorted(range(len(expert)), key=lambda i: -weight[i]):
        e = expert[item]
        roomy = [p for p in range(num_packs) if len(packs[p]) < capacity]
        best = min(roomy, key=lambda p: experts.value([*packs[p], e], p))
        free = [p for p in roomy if e not in packs[p]]
        if free:
            packs[min(free, key=lambda p: experts.value([*packs[p], e], p))].append(e)
        else:
            packs[best].append(_exchanged(experts, packs, e, packs[best], capacity))
    mean_load = math.fsum(experts.load(pack) for pack in packs) / num_packs
    for _ in range(max_swaps):
        if not _swap(experts, packs, tolerance * mean_load):
            break
    return [e for pack in packs for e in pack]


def _exchanged(
    experts: Experts, packs: list[list[int]], e: int, receiver: list[int], capacity: int
) -> int:
    """Give the expert to a full pack that lacks it; return what that pack gives away for it."""
    givers = [p for p, pack in enumerate(packs) if len(pack) == capacity and e not in pack]
    if not givers:
        return e
    giver = packs[min(givers, key=lambda p: experts.time(packs[p], p))]
    spare = [place for place, f in enumerate(giver) if f not in receiver]
    if not spare:
        return e
    place = min(spare, key=lambda place: experts.load([giver[place]]))
    given, giver[place] = giver[place], e
    return given


def _swap(experts: Experts, packs: list[list[int]], threshold: float) -> bool:
    """Make the best swap between the worst pack and any other; return whether there is one."""
    values = [experts.value(pack, p) for p, pack in enumerate(packs)]
    worst = values.index(max(values))
    best, chosen = threshold, None
    for p, other in enumerate(packs):
        if p == worst:
            continue
        for to, at in product(range(len(other)), range(len(packs[worst]))):
            i, j = packs[worst][at], other[to]
            if i in other or j in packs[worst]:
                continue
            here = [j if place == at else e for place, e in enumerate(packs[worst])]
            there = [i if place == to else e for place, e in enumerate(other)]
            gain = values[worst] - max(experts.value(here, worst), experts.value(there, p))
            if gain > best:
                best, chosen = gain, (p, here, there)
    if chosen is None:
        return False
    p, packs[worst], packs[p] = chosen
    return True
