"""The search from a placement in force written the slow, obvious way: every move from scratch."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .reference_risk import Experts


if TYPE_CHECKING:
    from collections.abc import Iterator

    Row = list[int]
    """What each slot of one layer holds."""

    Move = tuple[tuple[int, int], ...]
    """(slot, expert that it holds then): one is a replacement, two are a swap."""


class AmbiguousError(Exception):
    """Two numbers are so close that rounding may order them either way."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How far the search goes, see the bounds of the kernel."""

    max_moved: int
    max_count: int
    tolerance: float = 0.0
    price: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer: what is known of experts and ranks, and what moves are counted from."""

    mean: list[float]
    covariance: list[list[float]]
    slowness: list[float]
    node: list[int]
    home: list[int]
    origin: Row
    risk: float
    is_exact: bool = False
    """Whether all arithmetic is exact, so that equal is equal and close is not."""

    def pack(self, row: Row, rank: int) -> Row:
        """Return what a rank holds."""
        per_rank = len(row) // len(self.slowness)
        return row[rank * per_rank : (rank + 1) * per_rank]

    def value(self, row: Row, rank: int) -> float:
        """Return (mean + risk * standard deviation) * slowness of a rank."""
        counts = [max(row.count(e), 1) for e in range(len(self.mean))]
        experts = Experts(self.mean, self.covariance, counts, self.risk, self.slowness)
        return experts.value(self.pack(row, rank), rank)

    def peak(self, row: Row) -> float:
        """Return the value of the worst rank."""
        return max(self.value(row, rank) for rank in range(len(self.slowness)))

    def moved(self, row: Row) -> int:
        """Return how many copies the ranks hold more than in the origin."""
        pairs = [(self.pack(row, r), self.pack(self.origin, r)) for r in range(len(self.slowness))]
        return sum((Counter(new) - Counter(old)).total() for new, old in pairs)

    def steps(self, row: Row, bounds: Bounds, max_steps: int) -> Iterator[tuple[Move, Row]]:
        """Yield each step, and the row after it.

        Raises:
            AmbiguousError: Rounding decides what comes next.
        """
        for _ in range(max_steps):
            move = self._best_move(row, bounds)
            if move is None:
                return
            row = _after(row, move)
            yield move, row

    def _best_move(self, row: Row, bounds: Bounds) -> Move | None:
        values = [self.value(row, r) for r in range(len(self.slowness))]
        peak = max(values)
        heavy = values.index(peak)
        for rank, value in enumerate(values):
            # Ranks of equal contents may have come to them by different roundings.
            if rank != heavy:
                self._is_less(value, peak)
        mean_load = math.fsum(self.mean) / len(values)
        best, chosen = 0.0, None
        for move in itertools.chain(self._swaps(row, heavy), self._replacements(row, heavy)):
            after = _after(row, move)
            cost = self.moved(after) - self.moved(row)
            effort = cost if cost > 0 else 0.5
            least = max(
                best * effort, bounds.tolerance * mean_load, bounds.price * mean_load * cost
            )
            room = max(0, bounds.max_moved - self.moved(row))
            if cost > room or self._adds_too_many(row, move, bounds):
                continue
            changed = [r for r in range(len(values)) if self._has_changed(row, after, r)]
            worst = max(self.value(after, r) for r in {*changed, heavy})
            if len(move) == 1:
                worst = max(worst, self._left_to_others(row, *move))
            gain = peak - worst
            if chosen is not None and self._is_same(row, move, chosen):
                continue
            if self._is_less(least, gain) and self._is_less(best * effort, gain):
                best, chosen = gain / effort, move
        return chosen

    def _is_less(self, a: float, b: float) -> bool:
        if not self.is_exact and math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12):
            raise AmbiguousError
        return a < b

    def _is_same(self, row: Row, move: Move, other: Move) -> bool:
        """Return whether two moves differ only in which of equal slots of a rank change."""
        per_rank = len(row) // len(self.slowness)
        mine, theirs = ([(s // per_rank, row[s], e) for s, e in m] for m in (move, other))
        return mine == theirs

    def _swaps(self, row: Row, heavy: int) -> Iterator[Move]:
        """Yield the swaps of the worst rank, by the other rank, own slot and other slot."""
        per_rank = len(row) // len(self.slowness)
        here = range(heavy * per_rank, (heavy + 1) * per_rank)
        for p in range(len(self.slowness)):
            is_tied = self.home[0] >= 0 and self.node[p] != self.node[heavy]
            if p == heavy or is_tied:
                continue
            there = range(p * per_rank, (p + 1) * per_rank)
            for given, to in itertools.product(here, there):
                i, j = row[given], row[to]
                if i not in self.pack(row, p) and j not in self.pack(row, heavy):
                    yield (given, j), (to, i)

    def _replacements(self, row: Row, heavy: int) -> Iterator[Move]:
        """Yield the replacements that touch the worst rank, by slot and by what it gets."""
        per_rank = len(row) // len(self.slowness)
        for slot, i in enumerate(row):
            p = slot // per_rank
            for j in range(len(self.mean)) if p == heavy else self.pack(row, heavy):
                is_away = self.home[j] >= 0 and self.home[j] != self.node[p]
                if j not in self.pack(row, p) and row.count(i) > 1 and not is_away:
                    after = _after(row, ((slot, j),))
                    if self.home[i] < 0 or self._is_at_home(after, i):
                        yield ((slot, j),)

    def _is_at_home(self, row: Row, e: int) -> bool:
        per_rank = len(row) // len(self.slowness)
        return any(
            f == e and self.node[slot // per_rank] == self.home[e] for slot, f in enumerate(row)
        )

    def _adds_too_many(self, row: Row, move: Move, bounds: Bounds) -> bool:
        return len(move) == 1 and row.count(move[0][1]) >= bounds.max_count

    def _left_to_others(self, row: Row, part: tuple[int, int]) -> float:
        """Return the worst other rank with the expert that goes, nothing put in its place."""
        slot, i = part[0], row[part[0]]
        per_rank = len(row) // len(self.slowness)
        # Nobody: an expert without tokens, in the slot that is given up.
        mean = [*self.mean, 0.0]
        covariance = [[*line, 0.0] for line in self.covariance] + [[0.0] * len(mean)]
        nobody = len(self.mean)
        without = [nobody if at == slot else e for at, e in enumerate(row)]
        counts = [max(without.count(e), 1) for e in range(len(mean))]
        experts = Experts(mean, covariance, counts, self.risk, self.slowness)
        others = [r for r in range(len(self.slowness)) if r != slot // per_rank]
        return max(
            (experts.value(self.pack(without, r), r) for r in others if i in self.pack(row, r)),
            default=-math.inf,
        )

    def _has_changed(self, row: Row, after: Row, rank: int) -> bool:
        """Return whether a rank holds other experts, or other shares of them."""
        return any(
            e != f or row.count(e) != after.count(e)
            for e, f in zip(self.pack(row, rank), self.pack(after, rank), strict=True)
        )


def _after(row: Row, move: Move) -> Row:
    new = list(row)
    for slot, expert in move:
        new[slot] = expert
    return new
