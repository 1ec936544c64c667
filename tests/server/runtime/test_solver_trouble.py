"""What the solver process does when its device fails, and what it plans for together."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from expertplane_planner import Forecast, InvalidInputError, solve_many
from expertplane_server.core.parameters import PlacementRules
from expertplane_server.core.spec import PolicyChoice, TopologySpec
from expertplane_server.runtime import planning as planning_module
from expertplane_server.runtime.device_faults import STAND_IN
from expertplane_server.runtime.jobs import (
    Answer,
    CheckpointJob,
    DeviceStatus,
    Failure,
    Lacking,
    Learned,
    LearnJob,
    Phase,
    Rejection,
    SolveJob,
    Start,
    Taken,
    Told,
    Trouble,
    TroubleReason,
    WarmJob,
)
from expertplane_server.runtime.solver_device import CPU
from expertplane_server.runtime.solver_worker import Worker

from .test_forecasts import checkpoint, ref, solve_job, solved, window


if TYPE_CHECKING:
    from collections.abc import Sequence

    from expertplane_planner import Plan, PlannerError, SolveTask
    from expertplane_server.runtime.jobs import Job, Reply


WARM_JOB = WarmJob(
    topology=TopologySpec(num_nodes=1, ranks_per_node=2, slots_per_rank=3),
    num_logical_experts=4,
    num_expert_groups=1,
    policy=PolicyChoice(),
    rules=PlacementRules(),
)


class Planning:
    """The library's planning, which raises when it is told to.

    Attributes:
        sizes: of the batches that were asked for, with the device of each.
        errors: what to raise next, first things first; None plans.
    """

    def __init__(self, *errors: Exception | None) -> None:
        self.sizes: list[tuple[int, str]] = []
        self.errors = list(errors)

    def __call__(
        self, tasks: Sequence[SolveTask], *, device: torch.device
    ) -> Sequence[Plan | PlannerError]:
        self.sizes.append((len(tasks), str(device)))
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        return solve_many(tasks, device=device)


def no_room() -> Exception:
    """Return what torch raises where a device has no room."""
    return torch.cuda.OutOfMemoryError("CUDA out of memory.")


def accelerated(*errors: Exception | None) -> tuple[Worker, Planning]:
    """Return a worker on a stand-in for a device, and how it plans."""
    planning = Planning(*errors)
    return Worker(STAND_IN, plan=planning), planning


def told(by: Worker, *jobs: Job) -> tuple[list[Reply], list[Trouble]]:
    """Return the replies to jobs, and what troubles were told of between them."""
    said = list(by.tell(jobs))
    return (
        [each.reply for each in said if isinstance(each, Told)],
        [each for each in said if isinstance(each, Trouble)],
    )


def test_out_of_memory() -> None:
    """The job at hand is answered all the same, from the CPU, and so are those after it."""
    made, planning = accelerated(no_room())
    said = list(made.tell((solve_job(window(1), None),)))

    assert [type(each) for each in said] == [Trouble, Told]
    trouble, answer = said
    assert isinstance(trouble, Trouble)
    assert (trouble.device, trouble.reason) == ("cpu:0", TroubleReason.OUT_OF_MEMORY)
    assert isinstance(answer, Told)
    assert isinstance(answer.reply, Answer)
    assert answer.status == DeviceStatus(device="cpu")
    plain = solved(Worker(CPU), solve_job(window(1), None))
    assert answer.reply.solution.digest == plain.digest
    assert told(made, solve_job(window(1), None))[1] == []
    assert planning.sizes == [(1, "cpu:0"), (1, "cpu"), (1, "cpu")]


def test_lost_device_takes_its_forecasts_along() -> None:
    """A job that relies on one is answered Lacking; one that brings a checkpoint is done."""
    made, planning = accelerated()
    made.reply(LearnJob(window(0), ref("a/a", is_new=True)))
    made.reply(LearnJob(window(0), ref("b/b", is_new=True)))
    written = checkpoint(made, "a/a")
    planning.errors = [RuntimeError("CUDA error: unspecified launch failure")]
    replies, troubles = told(made, solve_job(window(1), ref("a/a")))
    assert [type(reply) for reply in replies] == [Lacking]
    assert [trouble.reason for trouble in troubles] == [TroubleReason.LOST]
    assert isinstance(made.reply(LearnJob(window(1), ref("b/b"))), Lacking)
    assert isinstance(made.reply(CheckpointJob(ref("b/b"))), Lacking)

    brought = replace(ref("a/a"), start=Start(written))
    answer = made.reply(solve_job(window(1), brought))
    assert isinstance(answer, Answer)
    assert answer.forecast is not None
    assert answer.forecast.num_windows == 2


def test_device_that_cannot_be_opened_any_more() -> None:
    """The planner calls that an invalid input, which is no fault of the job."""
    error = InvalidInputError("device", "Expected a device that torch can use here.")
    error.__cause__ = RuntimeError("CUDA error: unspecified launch failure")
    made, _ = accelerated(error)
    replies, troubles = told(made, solve_job(window(1), None))

    assert [type(reply) for reply in replies] == [Answer]
    assert [trouble.reason for trouble in troubles] == [TroubleReason.LOST]


def test_window_is_learned_once() -> None:
    """A job that brings its checkpoint is done again from it, not from a half-done update."""
    kept = Worker(CPU)
    kept.reply(LearnJob(window(0), ref(is_new=True)))
    brought = replace(ref(), start=Start(checkpoint(kept)))
    made, _ = accelerated(no_room())
    replies, troubles = told(made, solve_job(window(1), brought))
    kept.reply(solve_job(window(1), ref()))

    (answer,) = replies
    assert isinstance(answer, Answer)
    assert len(troubles) == 1
    assert answer.forecast is not None
    assert answer.forecast.num_windows == 2
    assert checkpoint(made) == checkpoint(kept)


@pytest.mark.parametrize("kind", ["learn", "solve"])
def test_device_lost_in_the_forecast(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that fails while a window is learned leaves no half-learned forecast behind."""
    made, _ = accelerated()
    made.reply(LearnJob(window(0), ref(is_new=True)))
    observe, errors = Forecast.observe, [no_room()]

    def failing(self: Forecast, samples: torch.Tensor) -> None:
        observe(self, samples)
        if errors:
            raise errors.pop()

    monkeypatch.setattr(Forecast, "observe", failing)
    wanted: Job = LearnJob(window(1), ref())
    if kind == "solve":
        wanted = solve_job(window(1), ref())
    replies, troubles = told(made, wanted)

    assert [type(reply) for reply in replies] == [Lacking]
    assert len(troubles) == 1
    learned = made.reply(LearnJob(window(1), ref(is_new=True)))
    assert isinstance(learned, Learned)
    assert learned.forecast.num_windows == 1


def test_device_lost_in_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that fails while a checkpoint is read says nothing about the checkpoint."""
    kept = Worker(CPU)
    kept.reply(LearnJob(window(0), ref(is_new=True)))
    brought = replace(ref(), start=Start(checkpoint(kept)))
    from_bytes = Forecast.from_bytes

    def failing(content: bytes, device: torch.device) -> Forecast:
        if device == STAND_IN:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return from_bytes(content, device)

    monkeypatch.setattr(Forecast, "from_bytes", failing)
    made, _ = accelerated()
    replies, troubles = told(made, LearnJob(window(1), brought))

    (learned,) = replies
    assert isinstance(learned, Learned)
    assert len(troubles) == 1
    assert (learned.forecast.num_windows, learned.forecast.refusal) == (2, "")


def test_cpu_is_not_left() -> None:
    """On the CPU there is nowhere else to go: the job fails, and what is known stays."""
    made = Worker(CPU, plan=Planning(no_room()))
    made.reply(LearnJob(window(0), ref(is_new=True)))
    replies, troubles = told(made, solve_job(window(1), ref()))

    (failure,) = replies
    assert isinstance(failure, Failure)
    assert "OutOfMemoryError" in failure.message
    assert troubles == []
    assert isinstance(made.reply(LearnJob(window(2), ref())), Learned)


def test_batch_is_planned_together() -> None:
    """Solves that come together are planned in one call, each as it would be alone."""
    jobs: list[SolveJob] = [solve_job(window(seed), None) for seed in range(3)]
    jobs += [solve_job(window(seed), ref(f"a/{seed}", is_new=True)) for seed in range(3)]
    made, planning = accelerated()
    replies, troubles = told(made, *jobs)
    alone = [solved(Worker(CPU), job) for job in jobs]

    assert planning.sizes == [(6, "cpu:0")]
    assert troubles == []
    for reply, plan in zip(replies, alone, strict=True):
        assert isinstance(reply, Answer)
        assert reply.solution.digest == plan.digest
        assert reply.solution.balance == plan.balance
        assert reply.solution.gain == plan.gain


def test_batch_that_is_too_large() -> None:
    """Where there is no room for all at once there may be for each, and the device is kept."""
    made, planning = accelerated(no_room())
    jobs = [solve_job(window(seed), ref(f"a/{seed}", is_new=True)) for seed in range(3)]
    replies, troubles = told(made, *jobs)

    assert planning.sizes == [(3, "cpu:0"), (1, "cpu:0"), (1, "cpu:0"), (1, "cpu:0")]
    assert [type(reply) for reply in replies] == [Answer] * 3
    assert troubles == []


def test_batch_with_one_deployment_twice() -> None:
    """The second window is learned after the first, and each answer tells of its own."""
    together, after = Worker(STAND_IN), Worker(CPU)
    jobs = (solve_job(window(1), ref(is_new=True)), solve_job(window(2), ref()))
    replies, _ = told(together, *jobs)
    expected = [after.reply(job) for job in jobs]

    for reply, wanted in zip(replies, expected, strict=True):
        assert isinstance(reply, Answer)
        assert isinstance(wanted, Answer)
        assert reply.forecast == wanted.forecast
        assert reply.solution.digest == wanted.solution.digest
    assert checkpoint(together) == checkpoint(after)


def test_failing_job_among_good_ones() -> None:
    """Refused before the plan, in it, or failed in it: the others of the batch are answered."""
    impossible = PlacementRules(max_replicas=1)
    made, planning = accelerated()
    replies, _ = told(
        made,
        solve_job(window(0), None),
        solve_job(window(1), ref("a/a")),
        solve_job(window(2), None, num_expert_groups=3),
        solve_job(window(3), ref("b/b", is_new=True), rules=impossible),
        solve_job(window(4), None),
    )

    assert [type(reply) for reply in replies] == [Answer, Lacking, Rejection, Rejection, Answer]
    refused = [reply.field for reply in replies if isinstance(reply, Rejection)]
    assert refused == ["num_expert_groups", "engine.max_replicas_per_expert"]
    assert replies[3].forecast is not None  # type: ignore[union-attr]
    assert replies[3].forecast.num_windows == 1  # type: ignore[union-attr]
    assert planning.sizes[0][0] <= 4


def test_batch_that_cannot_be_planned_for_together() -> None:
    """A defect that one job meets is not the others': each has its plan made alone then."""
    made, planning = accelerated(
        KeyError("whatever"), None, InvalidInputError("seed", "no"), KeyError("whatever"), None
    )
    replies, troubles = told(made, *(solve_job(window(seed), None) for seed in range(4)))

    assert [type(reply) for reply in replies] == [Answer, Rejection, Failure, Answer]
    assert troubles == []
    assert [size for size, _ in planning.sizes] == [4, 1, 1, 1, 1]


def test_device_lost_under_a_batch() -> None:
    """All jobs of the batch are done on the CPU, one by one, so that none waits for the last."""
    made, planning = accelerated(RuntimeError("CUDA error: device lost"))
    wanted = (
        solve_job(window(0), None),
        solve_job(window(1), ref("a/a", is_new=True)),
        solve_job(window(2), None),
    )
    replies, troubles = told(made, *wanted)

    assert [type(reply) for reply in replies] == [Answer, Answer, Answer]
    assert len(troubles) == 1
    assert planning.sizes == [(3, "cpu:0"), (1, "cpu"), (1, "cpu"), (1, "cpu")]


def test_device_lost_while_answers_are_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has been told is not told again."""
    made, planning = accelerated()
    finish, num_finished = planning_module.finish, 0

    def failing(*args: Any, **more: Any) -> Any:
        nonlocal num_finished
        num_finished += 1
        if num_finished == 2:
            raise no_room()
        return finish(*args, **more)

    monkeypatch.setattr(planning_module, "finish", failing)
    jobs = [solve_job(window(seed), None) for seed in range(3)]
    said = list(made.tell(jobs))

    assert [type(each) for each in said] == [Told, Trouble, Told, Told]
    digests = [
        each.reply.solution.digest
        for each in said
        if isinstance(each, Told) and isinstance(each.reply, Answer)
    ]
    assert digests == [solved(Worker(CPU), job).digest for job in jobs]
    assert [size for size, _ in planning.sizes] == [3, 1, 1]


def test_phases() -> None:
    """A plan tells what its time went to, which adds up; what is no plan tells nothing."""
    made = Worker(CPU)
    (answer,) = made.tell((solve_job(window(0), ref(is_new=True)),))
    assert isinstance(answer, Told)
    assert isinstance(answer.reply, Answer)
    assert [phase for phase, _ in answer.phases] == list(Phase)
    assert all(seconds > 0 for _, seconds in answer.phases)
    total_s = sum(seconds for _, seconds in answer.phases)
    assert answer.reply.solution.solve_s == pytest.approx(total_s, rel=0.5)

    (learned,) = made.tell((LearnJob(window(1), ref()),))
    assert isinstance(learned, Told)
    assert learned.phases == ()


def test_a_shape_is_compiled_for_on_a_device_only() -> None:
    """There something is planned for it, from scratch and onwards; a CPU compiles for no shape."""
    on_device, on_cpu = Planning(), Planning()

    for planning, device in ((on_device, STAND_IN), (on_cpu, CPU)):
        assert isinstance(Worker(device, plan=planning).reply(WARM_JOB), Taken)

    assert on_device.sizes == [(1, str(STAND_IN))] * 2
    assert on_cpu.sizes == []


def test_a_device_may_fail_while_it_compiles() -> None:
    """That is trouble like any other, and the job is done: nothing is to be compiled any more."""
    planning = Planning(torch.cuda.OutOfMemoryError("CUDA out of memory"))
    worker = Worker(STAND_IN, plan=planning)

    trouble, told = worker.tell((WARM_JOB,))

    assert isinstance(trouble, Trouble)
    assert isinstance(told, Told)
    assert isinstance(told.reply, Taken)
    assert told.status.device == "cpu"
