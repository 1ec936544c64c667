"""True load, in numbers that can be recognised when the planner hands them to its solver.

Logical counts: in layer 0, expert 0 counts 4 to the power of each rank, so that the sum tells
which ranks were counted, and how often; expert 1 counts the number of the sample once for each
rank. Physical counts: slot p counts (1 + p) times the number of the sample, in every layer, so
that the sum over all slots tells the sample, and its spread over experts the plan of the mapping.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane_server.core.events import LoadKind

from .loop import ViolationError


if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from expertplane_server.core.plan import PlanRef

    from .scenario import Scenario


STEPS_PER_SAMPLE = 10
SAMPLE_S = 0.7
"""Time that the engines take for the steps of one sample."""


class Load:
    """What was measured where, and under which plan.

    Attributes:
        run: number of starts of the engines; the steps begin anew with each.
    """

    def __init__(self, scenario: Scenario) -> None:
        self._kind = scenario.kind
        self._num_experts = scenario.spec.num_logical_experts
        self._num_layers = scenario.spec.num_layers
        self._num_ranks = scenario.spec.topology.num_ranks
        self._slots_per_rank = scenario.spec.topology.slots_per_rank
        self.run = 1
        self._run_began_s = 0.0
        self._numbers: dict[tuple[int, int], int] = {}
        # By number of the sample and rank: the plans that it was measured under.
        self._plans: dict[tuple[int, int], set[PlanRef]] = {}

    @property
    def run_id(self) -> str:
        """Names the present run of the engines."""
        return f"run-{self.run}"

    def restart(self, now_s: float) -> None:
        """Begin a new run."""
        self.run += 1
        self._run_began_s = now_s

    def latest(self, now_s: float) -> int:
        """Return the number of samples that the present run has come to."""
        return int((now_s - self._run_began_s) / SAMPLE_S)

    def counts(
        self, first: int, end: int, ranks: Sequence[int], plan: PlanRef
    ) -> np.ndarray[Any, Any]:
        """Measure samples of some ranks: [K, L, E], or [K, L, slots] when physical."""
        physical = self._kind is LoadKind.PHYSICAL
        width = len(ranks) * self._slots_per_rank if physical else self._num_experts
        counts = np.zeros((end - first, self._num_layers, width))
        slots = [
            rank * self._slots_per_rank + place
            for rank in ranks
            for place in range(self._slots_per_rank)
        ]
        for at in range(end - first):
            number = self._number(first + at)
            for rank in ranks:
                self._plans.setdefault((number, rank), set()).add(plan)
            if number % 8 == 0:  # the engines were idle
                continue
            if physical:
                counts[at] = number * (1.0 + np.array(slots))
            else:
                counts[at] = len(ranks)
                counts[at, 0, 0] = sum(4.0**rank for rank in ranks)
                counts[at, 0, 1] = float(number * len(ranks))
        return counts

    def _number(self, index: int) -> int:
        return self._numbers.setdefault((self.run, index), len(self._numbers) + 1)

    def recognise(
        self,
        sample: np.ndarray[Any, Any],
        actives: Sequence[tuple[int, ...]],
        maps: Mapping[str, np.ndarray[Any, Any]],
    ) -> int:
        """Return the number of a sample that the planner has put together.

        Args:
            sample: [L, E], as the solver sees it.
            actives: the ranks that were not masked, of every generation so far.
            maps: the placements, by digest, that any rank may have served with.

        Raises:
            ViolationError: it is no sample that was measured, or not under one plan.
        """
        for active in actives:
            if self._kind is LoadKind.PHYSICAL:
                number = self._recognise_physical(sample, active, maps)
            else:
                number = self._recognise_logical(sample, active)
            if number:
                return number
        raise ViolationError(
            "I7",
            "Expected a sample that counts every rank once at most and was measured under one "
            f"plan, got {sample[0].tolist()}.",
        )

    def _recognise_logical(self, sample: np.ndarray[Any, Any], active: tuple[int, ...]) -> int:
        """Return the number of a sample; 0 where it cannot have come about."""
        marks, numbers = float(sample[0, 0]), float(sample[0, 1])
        for num_reported in range(len(active), 0, -1):
            coverage = num_reported / len(active)
            mark = round(marks * coverage)
            ranks = [rank for rank in range(self._num_ranks) if mark >> 2 * rank & 3]
            is_whole = abs(mark - marks * coverage) < 1e-6
            if not is_whole or not ranks or sum(4**rank for rank in ranks) != mark:
                continue
            if sum(rank in active for rank in ranks) != num_reported:
                continue
            number = round(numbers * coverage / len(ranks))
            is_numbered = abs(number * len(ranks) - numbers * coverage) < 1e-6
            if is_numbered and self._has_one_version(number, ranks):
                return number
        return 0

    def _recognise_physical(
        self,
        sample: np.ndarray[Any, Any],
        active: tuple[int, ...],
        maps: Mapping[str, np.ndarray[Any, Any]],
    ) -> int:
        """Return the number of a sample; 0 where it cannot have come about."""
        width = self._slots_per_rank
        slots = 1.0 + np.arange(self._num_ranks * width)
        # A start placement may go on counting on masked ranks; a plan leaves them empty.
        for ranks in (active, tuple(range(self._num_ranks))):
            counted = np.isin(np.arange(len(slots)) // width, ranks)
            number = round(float(sample[0].sum() / slots[counted].sum()))
            for plan in self._common(number, active):
                expected = np.zeros_like(sample)
                for layer, row in enumerate(maps[plan.digest]):
                    kept = counted & (row >= 0)
                    np.add.at(expected[layer], row[kept], number * slots[kept])
                if np.array_equal(expected, sample):
                    return number
        return 0

    def _common(self, number: int, ranks: Sequence[int]) -> list[PlanRef]:
        """Return the plans that all of these ranks have measured a sample under."""
        plans = set.intersection(*(self._plans.get((number, rank), set()) for rank in ranks))
        return sorted(plans, key=lambda plan: (plan.version, plan.digest))

    def _has_one_version(self, number: int, ranks: Sequence[int]) -> bool:
        """Tell whether all of these ranks have measured a sample under plans of one version.

        Counts by expert mean the same under any content that a version may have.
        """
        versions = (
            {plan.version for plan in self._plans.get((number, rank), ())} for rank in ranks
        )
        return bool(set.intersection(*versions))
