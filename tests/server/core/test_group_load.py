"""Which load a group takes, and through which plan it maps it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from expertplane_server.core import effects as fx, events as ev

from .. import builders
from .script import Conversation


def test_samples_are_counted() -> None:
    """Accepted and dropped samples are told apart in the status."""
    talk = Conversation(builders.group())
    talk.tell(builders.hello(1))
    talk.tell(builders.report((4, 3, 2, 1), (0, 0, 0, 0)), builders.report((4, 3, 2, 1)))

    assert (talk.group.num_samples, talk.group.num_dropped_samples) == (1, 2)


def test_physical_counts_through_the_plan_they_were_measured_under() -> None:
    """Slots of rank 1 under plan (0, 2, 1, 3) hold experts 1 and 3."""
    group = builders.group(builders.plan((0, 2, 1, 3)))
    group.handle(
        builders.hello(1, "a", (0,), applied=builders.ref(builders.plan())), builders.at()
    )
    group.handle(
        builders.hello(2, "b", (1,), applied=builders.ref(builders.plan())), builders.at()
    )
    physical: dict[str, Any] = {"kind": ev.LoadKind.PHYSICAL, "plan_version": 1}
    group.handle(builders.report((10, 20), stream=1, **physical), builders.at())
    effects = group.handle(builders.report((30, 40), stream=2, **physical), builders.at())
    (solve,) = [effect for effect in effects if isinstance(effect, fx.Solve)]

    assert np.stack(solve.samples).tolist() == [[[10, 30, 20, 40]]]


def test_physical_counts_of_the_start_placement() -> None:
    """Counts of version 0 are mapped through the start placement that the engine told."""
    group = builders.group()
    start = np.array([[3, 2, 1, 0]])
    group.handle(builders.hello(1, initial_phy2log=start), builders.at())
    counts = builders.report((10, 20, 30, 40), kind=ev.LoadKind.PHYSICAL)
    (solve,) = [e for e in group.handle(counts, builders.at()) if isinstance(e, fx.Solve)]

    assert np.stack(solve.samples).tolist() == [[[40, 30, 20, 10]]]


def test_the_start_placement_leaves_masked_ranks_out() -> None:
    """With rank 0 masked, slots 4 to 7 of rank 1 hold experts 0 to 3 unless somebody tells."""
    topology = builders.topology(slots_per_rank=4, masked_ranks=(0,))
    group = builders.group(wanted=builders.spec(topology=topology))
    group.handle(builders.hello(1, ranks=(1,)), builders.at())
    counts = builders.report((10, 20, 30, 40), kind=ev.LoadKind.PHYSICAL)
    (solve,) = [e for e in group.handle(counts, builders.at()) if isinstance(e, fx.Solve)]

    assert np.stack(solve.samples).tolist() == [[[10, 20, 30, 40]]]


def test_start_placement_is_learnt_also_after_a_restart() -> None:
    """A planner that restarts with a committed plan still maps counts of version 0 rightly."""
    plan = builders.plan()
    group = builders.group(plan)
    start = np.array([[3, 2, 1, 0]])
    group.handle(builders.hello(1, initial_phy2log=start), builders.at())
    group.handle(builders.applied(plan), builders.at())
    counts = builders.report((10, 20, 30, 40), kind=ev.LoadKind.PHYSICAL, plan_version=0)
    (solve,) = [e for e in group.handle(counts, builders.at()) if isinstance(e, fx.Solve)]

    assert np.stack(solve.samples).tolist() == [[[40, 30, 20, 10]]]


@pytest.mark.parametrize("kind", [ev.LoadKind.LOGICAL, ev.LoadKind.PHYSICAL])
@pytest.mark.parametrize("scope", [ev.LoadScope.PARTICIPANT, ev.LoadScope.DEPLOYMENT])
@pytest.mark.parametrize("width", [1, 3, 5])
def test_counts_of_the_wrong_width(kind: ev.LoadKind, scope: ev.LoadScope, width: int) -> None:
    """Counts must have one column per expert, or per slot that they are said to count."""
    talk = Conversation(builders.group())
    talk.tell(builders.hello(1))

    lines = talk.tell(builders.report((1.0,) * width, sequence=3, kind=kind, scope=scope))
    assert lines == ["1 < refused 3: INVALID_ARGUMENT load_report.counts.shape"]


def test_counts_of_the_wrong_number_of_layers() -> None:
    """Counts must have one row per layer."""
    group = builders.group(wanted=builders.spec(layer_ids=(3, 4)))
    talk = Conversation(group)
    talk.tell(builders.hello(1))

    lines = talk.tell(builders.report())
    assert lines == ["1 < refused 1: INVALID_ARGUMENT load_report.counts.shape"]


def test_unknown_version_of_physical_counts() -> None:
    """Slots cannot be mapped through a plan that the planner does not know."""
    talk = Conversation(builders.group(builders.plan(version=3)))
    talk.tell(builders.hello(1))

    counts = builders.report(kind=ev.LoadKind.PHYSICAL, plan_version=2)
    lines = talk.tell(counts)
    assert lines == ["1 < refused 1: UNKNOWN_PLAN_VERSION load_report.plan_version"]


def test_deployment_scope_of_the_elected() -> None:
    """The elected reporter may report for the whole deployment."""
    talk = Conversation(builders.group())
    talk.tell(builders.hello(1, "a", (0,)), builders.hello(2, "b", (1,)))

    lines = talk.tell(builders.report(scope=ev.LoadScope.DEPLOYMENT))
    assert lines == ["1 < ack 1", "sample accepted", "solve 1 of 1 samples"]


def test_deployment_scope_of_another() -> None:
    """Nobody else may."""
    talk = Conversation(builders.group())
    talk.tell(builders.hello(1, "a", (0,)), builders.hello(2, "b", (1,)))

    lines = talk.tell(builders.report(stream=2, scope=ev.LoadScope.DEPLOYMENT))
    assert lines == ["2 < refused 1: NOT_ELECTED load_report.scope"]


def test_known_plans_are_bounded() -> None:
    """Of many plans the latest sixteen maps are kept."""
    group = builders.group(*(builders.plan(version=v) for v in range(1, 31)))

    assert list(group._state.intake._maps) == list(range(15, 31))
