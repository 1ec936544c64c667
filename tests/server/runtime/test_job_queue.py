"""Which jobs go to the solver process together, and in which order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, strategies as st

from expertplane_server.core.spec import PolicyChoice
from expertplane_server.runtime.job_queue import MAX_BATCH_SOLVES, JobQueue, _num_bytes
from expertplane_server.runtime.jobs import (
    CheckpointJob,
    LearnJob,
    PolicyJob,
    Start,
)

from .test_forecasts import ref, solve_job, window


if TYPE_CHECKING:
    from expertplane_server.runtime.jobs import Job

WINDOW = window(0, num_samples=1)


def job(code: str) -> Job:
    """Return a job: "sa" solves for a, "la" learns, "ca" writes down; "s" and "p" are of none."""
    kind, name = code[0], code[1:]
    of = ref(name) if name else None
    if kind == "s":
        return solve_job(WINDOW, of)
    if of is None:
        return PolicyJob(PolicyChoice())
    return LearnJob(WINDOW, of) if kind == "l" else CheckpointJob(of)


def batches(codes: list[str], max_solves: int = MAX_BATCH_SOLVES) -> list[list[str]]:
    """Return what is taken of the jobs, turn by turn."""
    queue, names = JobQueue(), {}
    for code in codes:
        wanted = job(code)
        names[id(wanted)] = code
        queue.put(wanted)
    turns = []
    while taken := queue.take(max_solves):
        turns.append([names[id(each.job)] for each in taken])
    assert not queue
    return turns


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ("sa sb sc", "sa sb sc"),
        ("s s s", "s s s"),
        ("sa sa", "sa sa"),  # one after another in their batch
        ("la sb sc", "la|sb sc"),
        ("sa lb sc", "sa sc|lb"),
        ("sa p sc", "sa sc|p"),
        ("sa lb sb sc", "sa sc|lb|sb"),  # b's window comes first
        ("sa ca sa sb", "sa sb|ca|sa"),
        ("sa lb cc ld", "sa|lb|cc|ld"),
        ("p la s", "p|la|s"),
    ],
)
def test_what_goes_together(codes: str, expected: str) -> None:
    """Solves go together; others alone, in order, and before what comes after of their own."""
    turns = batches(codes.split())

    assert "|".join(" ".join(turn) for turn in turns) == expected


def test_one_at_a_time() -> None:
    """Where nothing is gained by it, nothing goes together, and nobody is overtaken."""
    codes = ["sa", "lb", "sc", "s", "p", "sd"]

    assert batches(codes, max_solves=1) == [[code] for code in codes]


def test_batches_are_bounded() -> None:
    """No more solves than the bound go together; the rest goes next."""
    turns = batches(["s"] * (2 * MAX_BATCH_SOLVES + 1))

    assert [len(turn) for turn in turns] == [MAX_BATCH_SOLVES, MAX_BATCH_SOLVES, 1]


def test_bytes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large solves go in batches of fewer; one that is too large for a batch goes alone."""
    size = _num_bytes(solve_job(WINDOW, None))
    monkeypatch.setattr("expertplane_server.runtime.job_queue._MAX_BATCH_BYTES", 2 * size)
    assert batches(["s"] * 5) == [["s", "s"], ["s", "s"], ["s"]]

    monkeypatch.setattr("expertplane_server.runtime.job_queue._MAX_BATCH_BYTES", size - 1)
    assert batches(["s"] * 2) == [["s"], ["s"]]


def test_bytes_are_those_that_travel() -> None:
    """Samples, the placement in force and the checkpoint count."""
    samples, incumbent = np.zeros((1, 2, 3)), np.zeros((2, 4), dtype=np.int32)
    bare = solve_job(samples, ref(), incumbent=None)
    start = replace(ref(), start=Start(b"12345"))

    assert _num_bytes(bare) == 48
    assert _num_bytes(replace(bare, incumbent=incumbent)) == 48 + 32
    assert _num_bytes(replace(bare, forecast=start)) == 48 + 5


def test_cancelled_jobs_leave() -> None:
    """A job that nobody waits for is out of the queue at once, and out of any batch."""
    queue = JobQueue()
    futures = [queue.put(solve_job(WINDOW, None)) for _ in range(4)]
    futures[0].cancel()
    futures[2].cancel()
    assert len(queue) == 2
    taken = queue.take(MAX_BATCH_SOLVES)

    assert [each.future for each in taken] == [futures[1], futures[3]]
    assert not futures[1].cancel()


def test_all_cancelled() -> None:
    """A service that stops leaves nobody waiting."""
    queue = JobQueue()
    futures = [queue.put(job("la")), queue.put(job("sb"))]
    queue.cancel_all()

    assert all(future.cancelled() for future in futures)
    assert queue.take(MAX_BATCH_SOLVES) == []


@given(
    codes=st.lists(st.sampled_from(["s", "p", *(k + d for k in "slc" for d in "abc")])),
    max_solves=st.integers(1, 4),
)
def test_order(codes: list[str], max_solves: int) -> None:
    """Of any jobs, those of one deployment keep their order, and so do those that do not solve."""
    turns = batches(codes, max_solves)
    done = [code for turn in turns for code in turn]

    assert sorted(done) == sorted(codes)
    for name in "abc":
        assert [code for code in done if code[1:] == name] == [
            code for code in codes if code[1:] == name
        ]
    assert [code for code in done if code[0] != "s"] == [code for code in codes if code[0] != "s"]
    for turn in turns:
        assert len(turn) == 1 or all(code[0] == "s" for code in turn)
        assert len(turn) <= max(1, max_solves)
