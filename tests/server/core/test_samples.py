"""How reports become samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from expertplane_server.core import limits
from expertplane_server.core.effects import SampleFate
from expertplane_server.core.errors import InvalidArgumentError
from expertplane_server.core.events import LoadKind, LoadReport, LoadScope
from expertplane_server.core.samples import Counts, Sampler, physical_to_logical

from .. import builders


BOTH = frozenset({0, 1})


class Harness:
    """A sampler of four experts and two ranks, fed by hand."""

    def __init__(self, **changes: Any) -> None:
        self.sampler = Sampler(builders.spec(**changes))

    def add(
        self,
        *samples: tuple[float, ...],
        ranks: tuple[int, ...] = (0,),
        run: str = builders.RUN,
        now_s: float = 0.0,
        **changes: Any,
    ) -> list[SampleFate]:
        """Add a report whose counts are logical already."""
        return self.sampler.add(
            builders.report(*samples, **changes),
            ranks=ranks,
            engine_run_id=run,
            to_logical=_as_they_are,
            now_s=now_s,
        )

    def close(
        self, *, present: frozenset[int] = BOTH, now_s: float = 0.0
    ) -> list[tuple[SampleFate, list[list[float]]]]:
        """Close what is due."""
        return [(fate, counts.tolist()) for fate, counts in self.sampler.close_due(present, now_s)]


def _as_they_are(report: LoadReport) -> Counts:
    return report.counts


def test_sum_over_participants() -> None:
    """A sample is the sum of its participants' reports."""
    harness = Harness()
    harness.add((1, 2, 3, 4), ranks=(0,))
    harness.add((10, 20, 30, 40), ranks=(1,))

    assert harness.close() == [(SampleFate.ACCEPTED, [[11, 22, 33, 44]])]


def test_waits_for_all_members() -> None:
    """A sample stays open while a member has not reported."""
    harness = Harness()
    harness.add(ranks=(0,))

    assert harness.close(now_s=9.9) == []


def test_closes_once() -> None:
    """A closed sample is not handed out again."""
    harness = Harness()
    harness.add(ranks=(0, 1))

    assert len(harness.close()) == 1
    assert harness.close(now_s=100) == []


def test_waits_for_who_has_just_gone() -> None:
    """A rank without a member is waited for while members come and go: it may come back."""
    harness = Harness(min_coverage=0.5)
    harness.add(ranks=(0,))

    assert harness.close(present=frozenset({0}), now_s=9.9) == []


def test_the_first_to_come_back_does_not_pass_for_the_whole_deployment() -> None:
    """After a restart of the planner a sample waits for the ranks that are still to connect."""
    harness = Harness()
    harness.add((1, 2, 3, 4), ranks=(0,))
    assert harness.close(present=frozenset({0}), now_s=0.1) == []
    harness.add((10, 20, 30, 40), ranks=(1,))

    assert harness.close(now_s=0.2) == [(SampleFate.ACCEPTED, [[11, 22, 33, 44]])]


def test_does_not_wait_for_who_has_been_gone_for_a_while() -> None:
    """Once the members have settled their reports make a sample, the rest is made up for."""
    harness = Harness(deadline_s=10.0, min_coverage=0.5)
    harness.close(present=frozenset({0}), now_s=0.0)
    harness.add((1, 2, 3, 4), ranks=(0,), now_s=10.0)

    assert harness.close(present=frozenset({0}), now_s=10.0) == [
        (SampleFate.ACCEPTED, [[2, 4, 6, 8]])
    ]


def test_deadline_counts_from_the_first_report() -> None:
    """A sample closes at its deadline, whatever is missing, not a moment earlier."""
    harness = Harness(deadline_s=10.0, min_coverage=0.5)
    harness.add(ranks=(0,), now_s=5.0)

    assert harness.close(now_s=14.9) == []
    assert len(harness.close(now_s=15.0)) == 1


def test_partial_logical_sample_is_scaled_by_coverage() -> None:
    """Routed counts of 3 ranks out of 4 count for 4 / 3."""
    four = builders.topology(ranks_per_node=4, slots_per_rank=1)
    harness = Harness(topology=four, min_coverage=0.75)
    harness.add((3, 6, 9, 12), ranks=(0, 1, 2))

    (closed,) = harness.close(present=frozenset(range(4)), now_s=10)
    assert closed == (SampleFate.ACCEPTED, [[4, 8, 12, 16]])


def test_partial_logical_sample_below_the_threshold_is_dropped() -> None:
    """Routed counts of half the ranks are not representative of the other half."""
    harness = Harness(min_coverage=0.75)
    harness.add(ranks=(0,))

    assert [fate for fate, _ in harness.close(now_s=10)] == [SampleFate.DROPPED_PARTIAL]


def test_partial_physical_sample_is_dropped() -> None:
    """What is missing of physical counts is whole experts, so nothing is made up for."""
    harness = Harness(min_coverage=0.5)
    harness.add(ranks=(0,), kind=LoadKind.PHYSICAL)

    assert [fate for fate, _ in harness.close(now_s=10)] == [SampleFate.DROPPED_PARTIAL]


def test_physical_sample_of_members_that_do_not_cover_all_ranks_is_dropped() -> None:
    """Physical counts need every rank of the topology, not only every member."""
    harness = Harness()
    harness.add(ranks=(0,), kind=LoadKind.PHYSICAL)

    closed = harness.close(present=frozenset({0}), now_s=10)
    assert [fate for fate, _ in closed] == [SampleFate.DROPPED_PARTIAL]


def test_whole_physical_sample_is_accepted() -> None:
    """Physical counts of every rank make a sample."""
    harness = Harness()
    harness.add((1, 0, 0, 0), ranks=(0,), kind=LoadKind.PHYSICAL)
    harness.add((0, 0, 0, 1), ranks=(1,), kind=LoadKind.PHYSICAL)

    assert harness.close() == [(SampleFate.ACCEPTED, [[1, 0, 0, 1]])]


@pytest.mark.parametrize("kind", [LoadKind.LOGICAL, LoadKind.PHYSICAL])
def test_masked_ranks_are_not_waited_for(kind: LoadKind) -> None:
    """A sample of all ranks that are not masked is whole, and is not scaled."""
    harness = Harness(topology=builders.topology(slots_per_rank=4, masked_ranks=(1,)))
    harness.add((1, 2, 3, 4), ranks=(0,), kind=kind)

    assert harness.close(present=frozenset({0})) == [(SampleFate.ACCEPTED, [[1, 2, 3, 4]])]


def test_who_answers_for_masked_ranks_only_does_not_make_a_sample_whole() -> None:
    """Rank 1 is masked, rank 0 is still missing; rank 1 counts once, as any."""
    topology = builders.topology(slots_per_rank=4, masked_ranks=(1,))
    harness = Harness(topology=topology, min_coverage=0.1)
    harness.add((1, 0, 0, 0), ranks=(1,))
    harness.add((1, 0, 0, 0), ranks=(1,))

    (closed,) = harness.close(now_s=10)
    assert closed[0] is SampleFate.DROPPED_PARTIAL


def test_a_rank_counts_once_whoever_reports_it() -> None:
    """A rank that another participant has taken over cannot stand in for a missing one."""
    harness = Harness(min_coverage=0.5)
    harness.add((1, 2, 3, 4), ranks=(0,), kind=LoadKind.PHYSICAL)
    harness.add((1, 2, 3, 4), ranks=(0,), kind=LoadKind.PHYSICAL)

    (closed,) = harness.close(now_s=10)
    assert closed == (SampleFate.DROPPED_PARTIAL, [[2, 4, 6, 8]])


def test_repeats_count_once() -> None:
    """A report that comes twice is added once and is no drop."""
    harness = Harness()
    harness.add((1, 2, 3, 4), ranks=(0,))

    assert harness.add((1, 2, 3, 4), ranks=(0,)) == []
    harness.add((1, 0, 0, 0), ranks=(1,))
    assert harness.close() == [(SampleFate.ACCEPTED, [[2, 2, 3, 4]])]


def test_late_report_is_dropped() -> None:
    """A report for a closed sample is dropped and counted as late."""
    harness = Harness()
    harness.add(ranks=(0, 1))
    harness.close()

    assert harness.add(ranks=(0, 1)) == [SampleFate.DROPPED_LATE]
    assert harness.close(now_s=100) == []


def test_same_step_of_another_run_is_another_sample() -> None:
    """Step numbers restart with the engine: the run is part of the key."""
    harness = Harness()
    harness.add(ranks=(0, 1), run="run-1")
    harness.close()

    assert harness.add(ranks=(0, 1), run="run-2") == []
    assert len(harness.close()) == 1


def test_sample_straddling_a_switch_is_dropped() -> None:
    """A sample measured under two plans is dropped."""
    harness = Harness()
    harness.add(ranks=(0,), plan_version=1)
    harness.add(ranks=(1,), plan_version=2)

    assert [fate for fate, _ in harness.close()] == [SampleFate.DROPPED_STRADDLING]


def test_sample_without_tokens_is_idle() -> None:
    """A sample of zeros is dropped as idle."""
    harness = Harness()
    harness.add((0, 0, 0, 0), ranks=(0, 1))

    assert [fate for fate, _ in harness.close()] == [SampleFate.DROPPED_IDLE]


def test_report_of_several_samples() -> None:
    """Sample k of a report starts k * steps_per_sample later and is keyed by that step."""
    harness = Harness()
    harness.add((1, 0, 0, 0), (0, 1, 0, 0), ranks=(0,), first_step=10, steps_per_sample=4)
    harness.add((0, 0, 1, 0), ranks=(1,), first_step=14, steps_per_sample=4)

    assert harness.close() == [(SampleFate.ACCEPTED, [[0, 1, 1, 0]])]


def test_closed_in_step_order() -> None:
    """Samples that close together come out in the order of their steps."""
    harness = Harness()
    harness.add((2, 0, 0, 0), ranks=(0, 1), first_step=2)
    harness.add((1, 0, 0, 0), ranks=(0, 1), first_step=1)

    assert [counts[0][0] for _, counts in harness.close()] == [1, 2]


def test_deployment_scope_closes_at_once() -> None:
    """Counts that the engine has summed already wait for nobody and are not scaled."""
    harness = Harness()
    harness.add((1, 2, 3, 4), ranks=(0,), scope=LoadScope.DEPLOYMENT)

    assert harness.close() == [(SampleFate.ACCEPTED, [[1, 2, 3, 4]])]


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("steps_per_sample", {"steps_per_sample": 2}),
        ("kind", {"kind": LoadKind.PHYSICAL}),
        ("scope", {"scope": LoadScope.DEPLOYMENT}),
    ],
)
def test_report_that_contradicts_an_open_sample(field: str, changes: dict[str, Any]) -> None:
    """A report that cuts or counts a step otherwise is refused whole, also its good samples."""
    harness = Harness()
    harness.add((1, 2, 3, 4), ranks=(0,), first_step=4)
    changes = {"steps_per_sample": 1, **changes}
    first_step = 4 - changes["steps_per_sample"]

    with pytest.raises(InvalidArgumentError) as refusal:
        harness.add((9, 9, 9, 9), (9, 9, 9, 9), ranks=(1,), first_step=first_step, **changes)

    assert refusal.value.field == f"load_report.{field}"
    assert refusal.value.reason == "INCONSISTENT_SAMPLE"
    harness.add((1, 1, 1, 1), ranks=(1,), first_step=4)
    assert harness.close(now_s=10) == [(SampleFate.ACCEPTED, [[2, 3, 4, 5]])]


def test_samples_that_overlap_are_refused() -> None:
    """Steps 0 to 15 are counted; a sample of 8 to 23 would count half of them twice."""
    harness = Harness()
    harness.add(ranks=(0, 1), first_step=0, steps_per_sample=16)
    harness.close()

    with pytest.raises(InvalidArgumentError) as refusal:
        harness.add(ranks=(0, 1), first_step=8, steps_per_sample=16)
    assert refusal.value.field == "load_report.first_step"


def test_a_run_may_cut_later_steps_otherwise() -> None:
    """Beyond what is covered a run may change its grid."""
    harness = Harness()
    harness.add(ranks=(0, 1), first_step=0, steps_per_sample=16)
    harness.add(ranks=(0, 1), first_step=20, steps_per_sample=4)

    assert len(harness.close()) == 2


def test_open_samples_are_bounded() -> None:
    """The oldest open sample makes room for the 65th, and its steps are over then."""
    harness = Harness()
    for step in range(limits.MAX_OPEN_SAMPLES):
        assert harness.add(ranks=(0,), first_step=step) == []

    assert harness.add(ranks=(0,), first_step=1000) == [SampleFate.DROPPED_OVERFLOW]
    assert harness.add(ranks=(1,), first_step=0) == [SampleFate.DROPPED_LATE]


def test_closed_keys_are_bounded_and_stay_closed() -> None:
    """A sample that closed very long ago is still closed, although its key is forgotten."""
    harness = Harness()
    for step in range(limits.MAX_CLOSED_KEYS + 10):
        harness.add(ranks=(0, 1), first_step=step)
        harness.close()

    assert len(harness.sampler._closed) == limits.MAX_CLOSED_KEYS
    assert harness.add(ranks=(0, 1), first_step=3) == [SampleFate.DROPPED_LATE]


def test_forgotten_runs_are_bounded() -> None:
    """Of a thousand runs no more is kept than of 4096 members."""
    harness = Harness()
    for number in range(limits.MAX_CLOSED_KEYS + limits.MAX_MEMBERS + 5):
        harness.add((1, 1, 1, 1), ranks=(0, 1), run=f"run-{number}")
        harness.close()

    assert len(harness.sampler._forgotten_step) == limits.MAX_MEMBERS


def test_tokens_of_empty_slots_are_dropped() -> None:
    """Slots of a masked rank hold nobody, whatever is counted there."""
    phy2log = np.array([[-1, -1, 0, 1], [1, 0, -1, -1]])
    counts = np.arange(8).reshape(1, 2, 4)

    assert physical_to_logical(counts, phy2log, 2).tolist() == [[[2, 3], [5, 4]]]


@given(st.data())
def test_physical_to_logical(data: st.DataObject) -> None:
    """Every slot's tokens go to the expert that the slot holds."""
    num_samples, num_layers, num_slots, num_experts = (
        data.draw(st.integers(1, limit)) for limit in (3, 3, 6, 5)
    )
    rows = st.lists(st.integers(0, num_experts - 1), min_size=num_slots, max_size=num_slots)
    phy2log = np.array(data.draw(st.lists(rows, min_size=num_layers, max_size=num_layers)))
    generator = np.random.default_rng(data.draw(st.integers(0, 99)))
    shape = (num_samples, num_layers, num_slots)
    counts = generator.integers(0, 2**40, size=shape)
    expected = np.zeros((num_samples, num_layers, num_experts))
    for k in range(num_samples):
        for layer in range(num_layers):
            for slot in range(num_slots):
                expected[k, layer, phy2log[layer, slot]] += counts[k, layer, slot]

    assert expected.tolist() == physical_to_logical(counts, phy2log, num_experts).tolist()


def test_open_samples_of_large_models_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples under way share one bound on memory: twice four counts are two samples."""
    monkeypatch.setattr(limits, "MAX_WINDOW_ENTRIES", 8)
    harness = Harness()
    harness.add((1, 0, 0, 0), (2, 0, 0, 0), ranks=(0,))

    assert harness.add(ranks=(0,), first_step=2) == [SampleFate.DROPPED_OVERFLOW]
