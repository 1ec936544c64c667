"""The solver process, for real: it answers, refuses, dies and is replaced."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from expertplane_server.core.errors import (
    ExhaustedError,
    InvalidArgumentError,
    UnavailableError,
)
from expertplane_server.core.parameters import ForecastParameters
from expertplane_server.core.plan import Evaluation
from expertplane_server.core.spec import PolicyChoice
from expertplane_server.runtime.jobs import (
    Answer,
    Checkpoint,
    CheckpointJob,
    ForecastRef,
    Lacking,
    SolveJob,
    Start,
)
from expertplane_server.runtime.solver import _MAX_PENDING, _MAX_POLICY_CHECKS, SolverProcess
from expertplane_server.telemetry.metrics import Metrics

from .. import builders


if TYPE_CHECKING:
    from collections.abc import AsyncIterator


ROOT = Path(__file__).parents[3]
PATIENCE_MS = 60_000


def job(*samples: tuple[float, ...], **changes: Any) -> SolveJob:
    """Return a job for one layer of four experts on two ranks of three slots."""
    counts = np.array(samples or ((4.0, 3.0, 2.0, 1.0),))[:, None, :]
    return SolveJob(
        **{
            "samples": counts,
            "topology": builders.topology(slots_per_rank=3),
            "num_expert_groups": 1,
            "policy": PolicyChoice(),
            **changes,
        }
    )


@pytest.fixture
async def solver() -> AsyncIterator[SolverProcess]:
    """A warm solver on the CPU."""
    made = SolverProcess("cpu", solve_timeout_s=60.0, metrics=Metrics())
    await made.start()
    yield made
    await made.stop()


def pid_of(solver: SolverProcess) -> int:
    """Return the id of the solver's process."""
    assert solver._host.pid is not None
    return solver._host.pid


def count(solver: SolverProcess, outcome: str) -> float:
    """Return how many solves ended so."""
    name, labels = "expertplane_solves_total", {"outcome": outcome}
    return solver._host._metrics.registry.get_sample_value(name, labels) or 0.0


async def test_solves_and_refuses(solver: SolverProcess) -> None:
    """A job is answered, a job that breaks a rule is refused, and the process lives on."""
    pid = pid_of(solver)
    solution = await solver.solve(job())
    assert sorted(solution.phy2log[0].tolist()) == [0, 0, 1, 1, 2, 3]
    assert solution.phy2log.dtype == np.int32

    with pytest.raises(InvalidArgumentError) as refusal:
        await solver.solve(job(num_expert_groups=3))
    assert refusal.value.field == "num_expert_groups"
    assert (await solver.solve(job())).digest == solution.digest
    assert pid_of(solver) == pid
    assert (count(solver, "answer"), count(solver, "rejection")) == (2, 1)


async def test_compared_with_the_incumbent(solver: SolverProcess) -> None:
    """A load without a deployment is judged by itself; the ranks bore 7 and 3 before."""
    incumbent = np.array([[0, 1, 2, 3]], dtype=np.int32)
    solution = await solver.solve(job(topology=builders.topology(), incumbent=incumbent))

    assert solution.gain > 0
    assert solution.balance_before is not None
    assert solution.balance_before.balancedness == pytest.approx(5 / 7)
    assert solution.balance.balancedness == 1.0
    assert solution.moved_slots == 2
    assert solution.evaluation is Evaluation.IN_SAMPLE


async def test_lost_and_slow_ranks(solver: SolverProcess) -> None:
    """Rank 1 of three is lost since the placement in force, and rank 2 is half as fast.

    Its slots are empty in the plan, and rank 2 has no more than half of what rank 0 has.
    """
    topology = builders.topology(
        ranks_per_node=3, slots_per_rank=3, masked_ranks=(1,), rank_capacities=(1.0, 1.0, 0.5)
    )
    incumbent = np.array([[0, 1, 2, 3, 0, 1, 2, 3, 0]])
    wanted = job((8.0, 8.0, 4.0, 4.0), topology=topology, incumbent=incumbent)
    solution = await solver.solve(wanted)

    (row,) = solution.phy2log.tolist()
    assert row[3:6] == [-1, -1, -1]
    assert set(row) == {-1, 0, 1, 2, 3}
    assert solution.balance_before is not None


async def test_capacities_for_a_policy_that_does_not_weigh_ranks(solver: SolverProcess) -> None:
    """They are refused when a deployment is created, not at its first solve."""
    await solver.check_policy(PolicyChoice(name="robust"), has_slow_ranks=True)
    await solver.check_policy(PolicyChoice(name="balanced"), has_slow_ranks=False)

    with pytest.raises(InvalidArgumentError, match="does not weigh ranks") as refusal:
        await solver.check_policy(PolicyChoice(name="balanced"), has_slow_ranks=True)
    assert refusal.value.field == "topology.rank_capacities"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_asked_to_end_by_somebody_else(
    solver: SolverProcess, number: signal.Signals
) -> None:
    """A terminal or a service manager tells the whole group; a drain needs the process still."""
    pid = pid_of(solver)
    os.kill(pid, number)

    assert (await solver.solve(job())).phy2log.shape == (1, 6)
    assert pid_of(solver) == pid


async def test_killed(solver: SolverProcess) -> None:
    """A killed process fails the job that was under way, and the next job gets a new process."""
    pid = pid_of(solver)
    os.kill(pid, signal.SIGKILL)

    with pytest.raises(UnavailableError) as refusal:
        await solver.solve(job())
    assert refusal.value.reason == "SOLVER_FAILED"
    assert (await solver.solve(job())).phy2log.shape == (1, 6)
    assert pid_of(solver) != pid
    assert count(solver, "failure") == 1


async def test_killed_with_a_forecast(solver: SolverProcess) -> None:
    """What a process remembered goes with it; from a checkpoint its successor makes the plan."""
    known = ForecastRef(deployment="a/b", generation=1, parameters=ForecastParameters())
    window = job((4.0, 3.0, 2.0, 1.0), (1.0, 2.0, 3.0, 9.0))
    first = await solver.run(replace(window, forecast=replace(known, start=Start(None))))
    written = await solver.run(CheckpointJob(known))
    before = await solver.run(replace(window, forecast=known))
    assert isinstance(first, Answer)
    assert isinstance(written, Checkpoint)
    assert isinstance(before, Answer)
    os.kill(pid_of(solver), signal.SIGKILL)
    with pytest.raises(UnavailableError):
        await solver.run(replace(window, forecast=known))

    assert isinstance(await solver.run(replace(window, forecast=known)), Lacking)
    resumed = replace(known, start=Start(written.content))
    after = await solver.run(replace(window, forecast=resumed))
    assert isinstance(after, Answer)
    assert after.solution.digest == before.solution.digest
    assert after.forecast == before.forecast
    assert (count(solver, "answer"), count(solver, "failure")) == (3, 1)


async def test_killed_under_way(solver: SolverProcess) -> None:
    """A process that is killed while jobs wait takes the first of them with it alone."""
    # Stopped, it takes the job and does not answer.
    pid = pid_of(solver)
    os.kill(pid, signal.SIGSTOP)
    under_way = asyncio.create_task(solver.solve(job()))
    waiting = asyncio.create_task(solver.solve(job()))
    await asyncio.sleep(0)
    os.kill(pid, signal.SIGKILL)

    with pytest.raises(UnavailableError):
        await under_way
    assert (await waiting).phy2log.shape == (1, 6)


async def test_too_late() -> None:
    """A solve that takes longer than it may is given up, and its process ended by force."""
    solver = SolverProcess("cpu", solve_timeout_s=0.05, metrics=Metrics())
    await solver.start()
    ended = os.pidfd_open(pid_of(solver))
    os.kill(pid_of(solver), signal.SIGSTOP)

    with pytest.raises(UnavailableError, match="took over 0.05 s"):
        await solver.solve(job())
    assert _has_ended(ended)
    await solver.stop()


async def test_a_process_that_does_not_read_is_replaced() -> None:
    """A job too large for the pipe's buffer hangs in the sending; it is given up as well."""
    solver = SolverProcess("cpu", solve_timeout_s=0.5, metrics=Metrics())
    await solver.start()
    os.kill(pid_of(solver), signal.SIGSTOP)
    large = replace(job(), samples=np.ones((64, 64, 256)))

    with pytest.raises(UnavailableError, match="took over 0.5 s"):
        await solver.solve(large)
    await solver.stop()


async def test_stop_does_not_wait_for_a_stuck_process() -> None:
    """A service that ends takes its solver with it, whatever the solver is doing."""
    solver = SolverProcess("cpu", solve_timeout_s=60.0, metrics=Metrics())
    await solver.start()
    ended = os.pidfd_open(pid_of(solver))
    os.kill(pid_of(solver), signal.SIGSTOP)
    under_way = asyncio.create_task(solver.solve(job()))
    await asyncio.sleep(0)
    await solver.stop()

    with pytest.raises((UnavailableError, asyncio.CancelledError)):
        await under_way
    assert _has_ended(ended)


async def test_a_job_that_nobody_waits_for_leaves_the_queue(solver: SolverProcess) -> None:
    """A caller who gives up does not make the next one wait for the job."""
    pid = pid_of(solver)
    os.kill(pid, signal.SIGSTOP)
    first = asyncio.create_task(solver.solve(job()))
    given_up = [asyncio.create_task(solver.solve(job())) for _ in range(8)]
    await asyncio.sleep(0)
    for task in given_up:
        task.cancel()
    await asyncio.gather(*given_up, return_exceptions=True)
    await asyncio.sleep(0)

    assert solver._num_pending == 1
    os.kill(pid, signal.SIGCONT)
    assert (await first).phy2log.shape == (1, 6)


async def test_queue_is_bounded(solver: SolverProcess) -> None:
    """So many jobs may be in flight; when they are done, there is room again."""
    pid = pid_of(solver)
    os.kill(pid, signal.SIGSTOP)
    jobs = [asyncio.create_task(solver.solve(job())) for _ in range(_MAX_PENDING)]
    await asyncio.sleep(0)

    with pytest.raises(ExhaustedError) as refusal:
        await solver.solve(job())
    assert (refusal.value.reason, refusal.value.retry_after_s) == ("SOLVER_BUSY", 1.0)
    os.kill(pid, signal.SIGCONT)
    await asyncio.gather(*jobs)
    await solver.solve(job())


async def test_policy_checks_leave_room(solver: SolverProcess) -> None:
    """However many deployments are created at once, their checks take no job's place."""
    os.kill(pid_of(solver), signal.SIGSTOP)
    checks = [
        asyncio.create_task(solver.check_policy(PolicyChoice(), has_slow_ranks=False))
        for _ in range(3 * _MAX_POLICY_CHECKS)
    ]
    await asyncio.sleep(0)

    assert solver._num_pending == _MAX_POLICY_CHECKS
    os.kill(pid_of(solver), signal.SIGCONT)
    await asyncio.gather(*checks)


async def test_job_that_is_given_up(solver: SolverProcess) -> None:
    """A caller that gives up does not leave its answer to the next one."""
    given_up = asyncio.create_task(solver.solve(job((1.0, 1.0, 1.0, 9.0))))
    await asyncio.sleep(0)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up

    solution = await solver.solve(job((9.0, 1.0, 1.0, 1.0)))
    assert solution.phy2log[0].tolist().count(0) > 1


@pytest.mark.parametrize("device", ["cuda:99", "cuda:0"])
async def test_device_that_is_not_there(device: str) -> None:
    """A solver without its device does not come up, and says why."""
    import torch

    if torch.cuda.is_available() and device == "cuda:0":
        pytest.skip("the device is there")
    solver = SolverProcess(device, solve_timeout_s=60.0, metrics=Metrics())

    with pytest.raises(UnavailableError, match=device) as refusal:
        await solver.start()
    await solver.stop()
    assert refusal.value.reason == "SOLVER_UNAVAILABLE"


async def test_stopped() -> None:
    """A stopped solver leaves no process behind."""
    solver = SolverProcess("cpu", solve_timeout_s=60.0, metrics=Metrics())
    await solver.start()
    ended = os.pidfd_open(pid_of(solver))
    await solver.stop()

    assert _has_ended(ended)


def test_worker_exits_with_its_parent() -> None:
    """When the service is killed, its solver ends by itself."""
    packages = (ROOT / each for each in ("proto", "planner", "server", "client", "."))
    parent = subprocess.Popen(
        [sys.executable, "-m", "tests.server.runtime.orphan"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, packages))},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    with parent.stdout as lines:
        worker = os.pidfd_open(int(lines.readline()))
        parent.send_signal(signal.SIGKILL)
        parent.wait()

        assert _has_ended(worker)


def _has_ended(process: int) -> bool:
    """Wait until a process has ended, and close its descriptor."""
    try:
        poll = select.poll()
        poll.register(process, select.POLLIN)
        return bool(poll.poll(PATIENCE_MS))
    finally:
        os.close(process)


LEFT_BEHIND = """
from expertplane_server.runtime.solver_child import SolverChild

child = SolverChild("cpu", insists=False)
child.wait_until_ready(100.0)
print(child.pid)
"""


def test_who_ends_without_ending_it_is_not_held_up() -> None:
    """It is killed at the exit of its parent, whose SIGTERM it would ignore."""
    result = subprocess.run(
        [sys.executable, "-c", LEFT_BEHIND], capture_output=True, text=True, timeout=120
    )

    assert result.returncode == 0, result.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(result.stdout), 0)
