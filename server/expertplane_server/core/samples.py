"""Load reports of several participants become samples: summed, deduplicated, closed once.

A sample is keyed by (engine run, first step). It closes when every rank has reported, when every
member has and nobody has come or gone for a while, or at its deadline. Repeats count once, late
reports are dropped.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from expertplane_server.core import limits
from expertplane_server.core.effects import SampleFate
from expertplane_server.core.errors import InvalidArgumentError
from expertplane_server.core.events import LoadKind, LoadReport, LoadScope


if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Set

    from expertplane_server.core.spec import DeploymentSpec


Counts = npt.NDArray[np.float64]
SampleKey = tuple[str, int]


@dataclass(slots=True)
class _OpenSample:
    """A sample under way.

    Attributes:
        total: [L, E], tokens summed over the reports so far.
        deadline_s: when it closes whatever is missing, on the monotonic clock.
        num_ranks: ranks of the topology, masked ones left out.
        missing: those of them that no report has answered for.
        reported: ranks that a report has answered for; disjoint from `missing`.
        versions: plan versions that the reports were measured under; more than one = straddling.
    """

    total: Counts
    deadline_s: float
    kind: LoadKind
    scope: LoadScope
    num_ranks: int
    missing: set[int]
    reported: set[int] = field(default_factory=set)
    versions: set[int] = field(default_factory=set)

    def add(self, counts: Counts, ranks: Collection[int], plan_version: int) -> None:
        """Adds what some ranks have counted; a rank that has been counted is not counted again."""
        if not self.reported.isdisjoint(ranks):
            return
        self.total += counts
        self.reported.update(ranks)
        self.missing.difference_update(ranks)
        self.versions.add(plan_version)

    def coverage(self) -> float:
        """Returns the share of the ranks that have reported."""
        if self.scope is LoadScope.DEPLOYMENT:
            return 1.0
        return (self.num_ranks - len(self.missing)) / self.num_ranks

    def is_complete(self, present: Set[int], is_settled: bool) -> bool:
        """Tells whether nobody is left to wait for.

        Ranks without a live participant are waited for only while members come and go: after a
        restart of the planner the others are about to return.
        """
        if self.scope is LoadScope.DEPLOYMENT or not self.missing:
            return True
        return is_settled and present.isdisjoint(self.missing)


@dataclass(frozen=True, slots=True)
class _Grid:
    """How a run's steps are cut into samples.

    Attributes:
        offset: first step of every sample, modulo `steps_per_sample`.
        covered_until: the first step beyond all samples so far.
    """

    steps_per_sample: int
    offset: int
    covered_until: int


class Sampler:
    """Turns reports into closed samples of one deployment and generation."""

    def __init__(self, spec: DeploymentSpec) -> None:
        self._spec = spec
        self._max_open = _max_open(spec)
        # Who was there the last time, and since when nobody has come or gone.
        self._present: frozenset[int] = frozenset()
        self._present_since_s = float("-inf")
        self._open: OrderedDict[SampleKey, _OpenSample] = OrderedDict()
        self._grids: OrderedDict[str, _Grid] = OrderedDict()
        # Keys that have closed, oldest first; below a run's forgotten step all count as closed.
        self._closed: OrderedDict[SampleKey, None] = OrderedDict()
        self._forgotten_step: OrderedDict[str, int] = OrderedDict()

    def change(self, spec: DeploymentSpec) -> int:
        """Goes on under another spec, and returns the number of samples that this ends.

        Where ranks, layers or experts are others, what is under way cannot be completed. It counts
        as closed, like all that was counted before: reports are sent again after a reconnect.
        """
        before, self._spec = self._spec, spec
        if spec.has_same_ranks(before):
            return 0
        self._max_open = _max_open(spec)
        ended = list(self._open)
        self._open.clear()
        for key in ended:
            self._remember_closed(key)
        return len(ended)

    def add(
        self,
        report: LoadReport,
        *,
        ranks: Collection[int],
        engine_run_id: str,
        to_logical: Callable[[LoadReport], Counts],
        now_s: float,
    ) -> list[SampleFate]:
        """Adds a report to its samples and returns the fates of those that were dropped for it.

        Args:
            report: checked against the spec by the caller.
            ranks: the ranks that the reporter answers for.
            engine_run_id: the run that the steps belong to.
            to_logical: maps the report's counts to [K, L, E].
            now_s: monotonic time.

        Raises:
            InvalidArgumentError: the report does not fit the samples that others have opened.
        """
        keys = [
            (engine_run_id, report.first_step + k * report.steps_per_sample)
            for k in range(report.counts.shape[0])
        ]
        self._check_consistent(report, keys)
        grid = self._grid_with(report, engine_run_id)
        logical = to_logical(report)
        self._remember_grid(engine_run_id, grid)
        fates: list[SampleFate] = []
        for key, counts in zip(keys, logical, strict=True):
            if self._is_closed(key):
                fates.append(SampleFate.DROPPED_LATE)
                continue
            sample = self._open.get(key)
            if sample is None:
                sample = self._open_sample(key, report, now_s)
            sample.add(counts, ranks, report.plan_version)
        while len(self._open) > self._max_open:
            key, _ = self._open.popitem(last=False)
            self._remember_closed(key)
            fates.append(SampleFate.DROPPED_OVERFLOW)
        return fates

    def close_due(self, present: Set[int], now_s: float) -> list[tuple[SampleFate, Counts]]:
        """Closes the samples that are complete or overdue and returns them in step order.

        Args:
            present: the ranks of the participants that are there.
            now_s: monotonic time.
        """
        # The same set most of the time: to compare a thousand ranks for every report takes longer
        # than to add it.
        if present is not self._present and present != self._present:
            self._present, self._present_since_s = frozenset(present), now_s
        is_settled = now_s - self._present_since_s >= self._spec.samples.deadline_s
        due = [
            key
            for key, sample in self._open.items()
            if sample.is_complete(present, is_settled) or now_s >= sample.deadline_s
        ]
        closed = []
        for key in sorted(due):
            sample = self._open.pop(key)
            self._remember_closed(key)
            closed.append((self._fate(sample), self._scaled(sample)))
        return closed

    def _grid_with(self, report: LoadReport, engine_run_id: str) -> _Grid:
        """Returns the run's grid of samples with this report on it.

        Samples that overlap would count steps twice, so a run changes its grid only beyond what it
        has covered.

        Raises:
            InvalidArgumentError: the report's samples overlap others that are cut otherwise.
        """
        steps, first = report.steps_per_sample, report.first_step
        end = first + steps * report.counts.shape[0]
        grid = self._grids.get(engine_run_id)
        if grid is None or first >= grid.covered_until:
            return _Grid(steps, first % steps, end)
        for name, expected, got in (
            ("steps_per_sample", grid.steps_per_sample, steps),
            ("first_step", f"{grid.offset} modulo {steps}", f"{first % steps} modulo {steps}"),
        ):
            if expected != got:
                raise InvalidArgumentError(
                    f"Expected {name} to be {expected}, as in the other reports of the run up to "
                    f"step {grid.covered_until}, got {got}.",
                    field=f"load_report.{name}",
                    reason="INCONSISTENT_SAMPLE",
                )
        return _Grid(steps, grid.offset, max(end, grid.covered_until))

    def _remember_grid(self, engine_run_id: str, grid: _Grid) -> None:
        """Remembers a run's grid in bounded memory, the latest runs longest."""
        self._grids[engine_run_id] = grid
        self._grids.move_to_end(engine_run_id)
        while len(self._grids) > limits.MAX_MEMBERS:
            self._grids.popitem(last=False)

    def _check_consistent(self, report: LoadReport, keys: list[SampleKey]) -> None:
        """Refuses a report that counts a step otherwise than the reports before it."""
        for key in keys:
            sample = self._open.get(key)
            if sample is None:
                continue
            for name in ("kind", "scope"):
                expected, got = getattr(sample, name), getattr(report, name)
                if expected != got:
                    raise InvalidArgumentError(
                        f"Expected {name} {expected} as in the other reports of step {key[1]}, "
                        f"got {got}.",
                        field=f"load_report.{name}",
                        reason="INCONSISTENT_SAMPLE",
                    )

    def _open_sample(self, key: SampleKey, report: LoadReport, now_s: float) -> _OpenSample:
        """Opens a sample that waits for every rank that is not masked."""
        sample = _OpenSample(
            total=np.zeros((self._spec.num_layers, self._spec.num_logical_experts)),
            deadline_s=now_s + self._spec.samples.deadline_s,
            kind=report.kind,
            scope=report.scope,
            num_ranks=self._spec.topology.num_active_ranks,
            missing=set(self._spec.topology.active_ranks),
        )
        self._open[key] = sample
        return sample

    def _fate(self, sample: _OpenSample) -> SampleFate:
        """Decides what becomes of a sample that closes now."""
        if len(sample.versions) > 1:
            return SampleFate.DROPPED_STRADDLING
        if not sample.total.any():
            return SampleFate.DROPPED_IDLE
        if sample.scope is LoadScope.PARTICIPANT:
            # What is missing of physical counts is not missing at random: it is whole experts.
            if sample.kind is LoadKind.PHYSICAL:
                return SampleFate.DROPPED_PARTIAL if sample.missing else SampleFate.ACCEPTED
            if sample.coverage() < self._spec.samples.min_coverage:
                return SampleFate.DROPPED_PARTIAL
        return SampleFate.ACCEPTED

    def _scaled(self, sample: _OpenSample) -> Counts:
        """Returns [L, E] tokens, scaled up to what all ranks would have reported."""
        coverage = sample.coverage()
        # Where masked ranks alone have reported, the sample is dropped as it is.
        return sample.total / coverage if 0.0 < coverage < 1.0 else sample.total

    def _is_closed(self, key: SampleKey) -> bool:
        """Tells whether a sample of this key was closed before, also long ago."""
        return key in self._closed or key[1] <= self._forgotten_step.get(key[0], -1)

    def _remember_closed(self, key: SampleKey) -> None:
        """Remembers a closed key in bounded memory."""
        self._closed[key] = None
        while len(self._closed) > limits.MAX_CLOSED_KEYS:
            (run, step), _ = self._closed.popitem(last=False)
            self._forgotten_step[run] = max(step, self._forgotten_step.pop(run, -1))
            while len(self._forgotten_step) > limits.MAX_MEMBERS:
                self._forgotten_step.popitem(last=False)


def _max_open(spec: DeploymentSpec) -> int:
    """Returns the number of samples that may be under way."""
    entries = spec.num_layers * spec.num_logical_experts
    return min(limits.MAX_OPEN_SAMPLES, max(1, limits.MAX_WINDOW_ENTRIES // entries))


def physical_to_logical(
    counts: np.ndarray[Any, Any], phy2log: np.ndarray[Any, Any], num_logical_experts: int
) -> Counts:
    """Sums tokens by slot into tokens by logical expert.

    Args:
        counts: [K, L, slots], tokens received by those slots.
        phy2log: [L, slots], the logical expert of each of them; -1 drops its tokens.
        num_logical_experts: E.

    Returns:
        [K, L, E] float64.
    """
    num_samples, num_layers, _ = counts.shape
    row = np.arange(num_samples * num_layers).reshape(num_samples, num_layers, 1)
    cells = row * num_logical_experts + np.maximum(phy2log, 0)
    num_cells = num_samples * num_layers * num_logical_experts
    weights = np.where(phy2log < 0, 0, counts)
    logical = np.bincount(cells.ravel(), weights=weights.ravel(), minlength=num_cells)
    shape = (num_samples, num_layers, num_logical_experts)
    return logical.astype(np.float64, copy=False).reshape(shape)
