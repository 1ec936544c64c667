"""What a participant says, in which order and when; and how counts become reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from expertplane.v1 import placement_service_pb2 as placement_pb2, tensor_pb2
from expertplane_client import InputError
from expertplane_client.messages import PlanRef, Request, goodbye, heartbeat
from expertplane_client.outbox import Outbox
from expertplane_client.reports import Switch, load_reports

from . import builders


if TYPE_CHECKING:
    from expertplane_client.identity import Identity


HELLO = Request(hello=placement_pb2.Hello(deployment=builders.DEPLOYMENT))


def outbox(
    *, capacity: int = 4, report_interval_s: float = 0.0, heartbeat_interval_s: float = 100.0
) -> Outbox:
    """Returns an outbox whose stream was welcomed at second 0."""
    opened = Outbox(capacity, lambda: heartbeat(PlanRef()))
    opened.open(HELLO)
    assert opened.pop(0.0) == HELLO
    opened.welcome(
        0.0,
        can_report=True,
        heartbeat_interval_s=heartbeat_interval_s,
        report_interval_s=report_interval_s,
    )
    return opened


def report() -> placement_pb2.LoadReport:
    """Returns a report without a number."""
    return placement_pb2.LoadReport(first_step=1)


def sequence(request: Request | None) -> int | None:
    """Returns the number of a report, None for nothing."""
    return None if request is None else request.load_report.sequence


def test_nothing_precedes_the_hello() -> None:
    """A new stream starts with its Hello, and reports wait for the Welcome."""
    opened = Outbox(4, lambda: heartbeat(PlanRef()))
    opened.add_report(report())
    opened.say(goodbye("of an older stream"))
    opened.open(HELLO)

    assert opened.pop(0.0) == HELLO
    assert opened.pop(0.0) is None
    assert opened.due_s() is None


def test_reports_wait_while_the_deployment_is_unknown() -> None:
    """Reports that nobody could use stay until a Welcome can use them."""
    opened = outbox()
    opened.welcome(0.0, can_report=False, heartbeat_interval_s=9.0, report_interval_s=0.0)
    opened.add_report(report())

    assert opened.pop(0.0) is None
    assert opened.num_reports == 1


def test_answers_overtake_reports() -> None:
    """What the planner waits for goes first."""
    opened = outbox()
    opened.add_report(report())
    opened.say(goodbye("x"))

    assert opened.pop(0.0) == goodbye("x")
    assert sequence(opened.pop(0.0)) == 1


def test_unanswered_reports_go_out_again() -> None:
    """A new stream repeats, in order and under their numbers, the reports without an answer."""
    opened = outbox()
    for _ in range(3):
        opened.add_report(report())
    assert [sequence(opened.pop(0.0)) for _ in range(3)] == [1, 2, 3]
    assert opened.settle_report(2)
    opened.open(HELLO)
    opened.pop(0.0)
    opened.welcome(0.0, can_report=True, heartbeat_interval_s=9.0, report_interval_s=0.0)

    assert [sequence(opened.pop(0.0)) for _ in range(3)] == [1, 3, None]


def test_the_oldest_report_makes_room() -> None:
    """The outbox is bounded; what it drops is counted and an answer to it is nobody's."""
    opened = outbox(capacity=2)
    for _ in range(3):
        opened.add_report(report())

    assert (opened.num_dropped, opened.num_reports) == (1, 2)
    assert [sequence(opened.pop(0.0)) for _ in range(3)] == [2, 3, None]
    assert not opened.settle_report(1)


def test_reports_keep_the_planners_pace() -> None:
    """Two batches are an interval apart; a new interval counts from the last batch."""
    opened = outbox(report_interval_s=10.0)
    opened.add_report(report())

    assert sequence(opened.pop(5.0)) == 1
    opened.add_report(report())
    assert (opened.pop(14.9), opened.due_s()) == (None, 15.0)
    opened.set_report_interval(2.0)
    assert opened.due_s() == 7.0
    assert sequence(opened.pop(7.0)) == 2


def test_a_backlog_goes_out_in_one_batch() -> None:
    """Whatever has piled up is sent without a pause, so that an outage leaves no lag behind."""
    opened = outbox(report_interval_s=10.0)
    for _ in range(3):
        opened.add_report(report())

    assert [sequence(opened.pop(5.0)) for _ in range(3)] == [1, 2, 3]
    opened.add_report(report())
    assert opened.pop(14.9) is None
    assert sequence(opened.pop(15.0)) == 4


def test_heartbeats_keep_time() -> None:
    """A sign of life goes out at every interval, whatever else is said."""
    opened = outbox(heartbeat_interval_s=3.0)

    assert (opened.pop(2.9), opened.due_s()) == (None, 3.0)
    assert opened.pop(3.5) == heartbeat(PlanRef())
    assert opened.due_s() == 6.5


def test_the_goodbye_is_the_last_word() -> None:
    """After the goodbye nothing is said, whatever waits."""
    opened = outbox()
    opened.add_report(report())
    opened.close(goodbye("done"))

    assert not opened.is_finished
    assert opened.pop(1000.0) == goodbye("done")
    assert opened.is_finished
    assert opened.pop(1000.0) is None


def reports(counts: np.ndarray[Any, Any], **changes: Any) -> list[placement_pb2.LoadReport]:
    """Returns the reports of some counts."""
    arguments: dict[str, Any] = {
        "first_step": 100,
        "steps_per_sample": 10,
        "kind": "logical",
        "scope": "participant",
        "switch": Switch(previous_version=2, version=3, step=0),
        "max_samples": 64,
        "max_message_bytes": 2**21,
    }
    return load_reports(counts, **(arguments | changes))


def test_samples_are_reported_under_the_plan_of_their_steps() -> None:
    """Samples before the switch name the plan before it; one on both sides is left out."""
    counts = np.arange(4).reshape(4, 1, 1)
    switch = Switch(previous_version=2, version=3, step=115)

    found = [
        (r.plan_version, r.first_step, r.counts.shape[0]) for r in reports(counts, switch=switch)
    ]
    assert found == [(2, 100, 1), (3, 120, 2)]


def test_a_switch_on_the_grid_loses_no_sample() -> None:
    """The sample that starts at the switch counts under the new plan."""
    switch = Switch(previous_version=2, version=3, step=110)

    found = [r.plan_version for r in reports(np.ones((2, 1, 1)), switch=switch)]
    assert found == [2, 3]


def test_one_sample_is_one_report() -> None:
    """Counts of two dimensions are one sample, in the narrowest integers that hold them."""
    (found,) = reports(np.array([[1, 2, 3]], dtype=np.int64))

    assert (found.plan_version, found.first_step, found.steps_per_sample) == (3, 100, 10)
    assert (
        found.kind,
        found.scope,
    ) == (placement_pb2.LOAD_KIND_LOGICAL, placement_pb2.LOAD_SCOPE_PARTICIPANT)
    assert (
        list(found.counts.shape),
        found.counts.dtype,
    ) == ([1, 1, 3], tensor_pb2.D_TYPE_INT32)


@pytest.mark.parametrize(
    "limits",
    [{"max_samples": 2}, {"max_message_bytes": 1024 + 2 * 24}],
    ids=["samples", "bytes"],
)
def test_many_samples_become_several_reports(limits: dict[str, int]) -> None:
    """Each report fits the planner's limits and starts at the step of its first sample."""
    found = reports(np.arange(30).reshape(5, 2, 3), **limits)

    assert [report.first_step for report in found] == [100, 120, 140]
    assert [report.counts.shape[0] for report in found] == [2, 2, 1]


def test_counts_beyond_int32_stay_wide() -> None:
    """No count is ever cut."""
    (found,) = reports(np.array([[2**40]]))

    assert found.counts.dtype == tensor_pb2.D_TYPE_INT64


@pytest.mark.parametrize(
    ("counts", "changes"),
    [
        (np.zeros(3), {}),
        (np.zeros((1, 1, 1, 1)), {}),
        (np.zeros((0, 2, 3)), {}),
        (np.zeros((2, 3), dtype=bool), {}),
        (np.zeros((2, 3)), {"first_step": -1}),
        (np.zeros((2, 3)), {"steps_per_sample": 0}),
        (np.zeros((2, 3)), {"kind": "experts"}),
        (np.zeros((2, 3)), {"scope": "everybody"}),
        (np.zeros((256, 4096)), {}),
    ],
)
def test_counts_that_cannot_be_sent_are_refused(counts: Any, changes: Any) -> None:
    """The caller hears at once what no planner would read."""
    with pytest.raises(InputError, match="Expected"):
        reports(counts, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"deployment": "Prod/x"},
        {"participant_id": "a b"},
        {"engine_run_id": ""},
        {"ranks": ()},
        {"ranks": (1, 0)},
        {"ranks": (0, 0)},
        {"ranks": (-1, 0)},
        {"ranks": (4096,)},
        {"generation": -1},
        {"initial_phy2log": np.zeros(3, dtype=int)},
        {"initial_phy2log": np.zeros((1, 3))},
    ],
)
def test_an_identity_out_of_order_is_refused(changes: Any) -> None:
    """Names and ranks are checked when the participant is made, not when it connects."""
    with pytest.raises(InputError, match="Expected"):
        builders.identity(**changes)


def test_the_start_placement_is_copied() -> None:
    """Writing to the array afterwards does not change who the participant is."""
    start = builders.phy2log()
    identity: Identity = builders.identity(initial_phy2log=start)
    start[:] = 0

    assert identity.initial_digest() == builders.PINNED_DIGEST
