"""The solver process and a device that fails, for real; a part of the CPU plays the device."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from expertplane_server.core.errors import UnavailableError
from expertplane_server.core.parameters import ForecastParameters
from expertplane_server.runtime import solver, solver_host
from expertplane_server.runtime.device_faults import VARIABLE
from expertplane_server.runtime.jobs import Answer, ForecastRef, Lacking, LearnJob, Start
from expertplane_server.runtime.solver import SolverProcess
from expertplane_server.runtime.solver_child import SolverChild
from expertplane_server.telemetry.metrics import Metrics

from ..fakes import HandClock
from .test_solver import job, pid_of


if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from expertplane_server.runtime.jobs import Ready


class Bench:
    """A solver, its clock, and what its metrics show."""

    def __init__(self, device: str, **changes: Any) -> None:
        self.clock = HandClock()
        self.metrics = Metrics()
        self.solver = SolverProcess(
            device, solve_timeout_s=60.0, metrics=self.metrics, clock=self.clock, **changes
        )
        self.num_prepared = 0

    async def regain(self, after_s: float) -> None:
        """Let time go by, and let the solver look after its device."""
        self.clock.now_s += after_s
        await self.solver.regain_device(self._prepare)

    async def _prepare(self) -> None:
        self.num_prepared += 1

    def value(self, name: str, **labels: str) -> float | None:
        """Return a metric."""
        return self.metrics.registry.get_sample_value(f"expertplane_solver_{name}", labels)

    def failures(self) -> tuple[float | None, float | None]:
        """Return how often the device had no room, and how often it was lost."""
        return (
            self.value("device_failures_total", reason="out_of_memory"),
            self.value("device_failures_total", reason="lost"),
        )

    def devices(self) -> list[str]:
        """Return the devices that are shown."""
        (family,) = self.metrics.solver_device.collect()
        return [sample.labels["device"] for sample in family.samples if sample.value == 1]

    def batches(self) -> tuple[float | None, float | None]:
        """Return how many solves went to the process, and in how many batches."""
        return self.value("batch_solves_sum"), self.value("batch_solves_count")

    @asynccontextmanager
    async def busy(self) -> AsyncIterator[asyncio.Task[Any]]:
        """Stop the process while it has a job; let it go on at the end."""
        os.kill(pid_of(self.solver), signal.SIGSTOP)
        under_way = asyncio.create_task(self.solver.solve(job()))
        # Its job has been taken from the queue, so that what comes next does not go with it.
        # It is a thread that takes it: there is no event to wait on.
        while self.solver._queue or not self.solver._num_pending:  # noqa: ASYNC110
            await asyncio.sleep(0)
        yield under_way
        os.kill(pid_of(self.solver), signal.SIGCONT)


@asynccontextmanager
async def started(device: str = "auto", **changes: Any) -> AsyncIterator[Bench]:
    """Start a solver, and stop it."""
    bench = Bench(device, **changes)
    await bench.solver.start()
    yield bench
    await bench.solver.stop()


async def test_device_fails_and_comes_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The job is answered, the CPU takes over, and after a minute the device is tried again."""
    monkeypatch.setenv(VARIABLE, "out_of_memory:1")
    async with started() as bench:
        assert bench.devices() == ["cpu:0"]
        pid = pid_of(bench.solver)
        first = await bench.solver.solve(job())
        assert first.phy2log.shape == (1, 6)
        assert (bench.failures(), bench.devices()) == ((1, 0), ["cpu"])
        assert (await bench.solver.solve(job())).digest == first.digest
        await bench.regain(59.0)
        assert (pid_of(bench.solver), bench.num_prepared) == (pid, 0)

        await bench.regain(1.0)
        assert pid_of(bench.solver) != pid
        assert (bench.num_prepared, bench.devices()) == (1, ["cpu:0"])
        assert (await bench.solver.solve(job())).digest == first.digest
        assert bench.failures() == (2, 0)
        assert bench.value("restarts_total") == 0

    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert [each.partition("s:")[0] for each in warnings] == [
        f"solver: device cpu:0 failed (out_of_memory), planning on the CPU, next attempt in {n} "
        for n in (60, 120)
    ]


async def test_device_that_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replaced process that cannot use the device comes up on the CPU, whatever was asked for.

    Only the first start insists.
    """
    monkeypatch.setenv(VARIABLE, "lost")
    async with started("cuda:0") as bench:
        monkeypatch.setenv(VARIABLE, "warm_up")
        await bench.solver.solve(job())
        await bench.regain(60.0)
        assert (bench.failures(), bench.devices()) == ((0, 2), ["cpu"])
        os.kill(pid_of(bench.solver), signal.SIGKILL)
        with pytest.raises(UnavailableError):
            await bench.solver.solve(job())
        assert (await bench.solver.solve(job())).phy2log.shape == (1, 6)
        # A process that is lost meanwhile is no reason to try earlier.
        assert bench.failures() == (0, 2)
        await bench.regain(119.0)
        assert (bench.failures(), bench.num_prepared) == ((0, 2), 1)


async def test_first_start_without_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """With auto the service starts on the CPU and says why; a device that is named must be there.

    An hour later at most it is looked for again.
    """
    monkeypatch.setenv(VARIABLE, "warm_up")
    async with started("auto") as bench:
        assert (bench.failures(), bench.devices()) == ((0, 1), ["cpu"])
        monkeypatch.setenv(VARIABLE, "lost:999")
        await bench.regain(60.0)
        assert bench.devices() == ["cpu:0"]

    monkeypatch.setenv(VARIABLE, "warm_up")
    named = Bench("cuda:0")
    with pytest.raises(UnavailableError, match="on device cuda:0, got: RuntimeError: CUDA error"):
        await named.solver.start()
    await named.solver.stop()


async def test_forecast_is_brought_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the device is lost, a job that relies on what it knew asks for the checkpoint."""
    monkeypatch.setenv(VARIABLE, "lost")
    known = ForecastRef(deployment="a/b", generation=1, parameters=ForecastParameters())
    window = job((4.0, 3.0, 2.0, 1.0), (1.0, 2.0, 3.0, 9.0))
    async with started() as bench:
        new = replace(known, start=Start(None))
        await bench.solver.run(LearnJob(window.samples, new))
        assert isinstance(await bench.solver.run(replace(window, forecast=known)), Lacking)
        answer = await bench.solver.run(replace(window, forecast=new))

        assert isinstance(answer, Answer)
        assert bench.failures() == (0, 1)


async def test_busy_process_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """While jobs wait the device has to, but not for ever: then the next job takes longer."""
    monkeypatch.setenv(VARIABLE, "lost:2")
    async with started() as bench:
        await bench.solver.solve(job())
        await bench.solver.solve(job())
        pid = pid_of(bench.solver)
        async with bench.busy() as under_way:
            await bench.regain(119.0)
            assert bench.num_prepared == 0
            regaining = asyncio.create_task(bench.regain(1.0))
            await asyncio.sleep(0)
        await under_way
        await regaining

        assert bench.num_prepared == 1
        assert pid_of(bench.solver) != pid
        assert bench.devices() == ["cpu:0"]


async def test_job_that_comes_while_forecasts_are_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was idle and is not any more is left alone until the next look."""
    monkeypatch.setenv(VARIABLE, "lost")
    async with started() as bench:
        await bench.solver.solve(job())
        pid, tasks = pid_of(bench.solver), []
        bench.clock.now_s += 60.0

        async def prepare() -> None:
            os.kill(pid, signal.SIGSTOP)
            tasks.append(asyncio.create_task(bench.solver.solve(job())))
            await asyncio.sleep(0)

        await bench.solver.regain_device(prepare)
        os.kill(pid, signal.SIGCONT)
        await asyncio.gather(*tasks)

        assert pid_of(bench.solver) == pid
        assert bench.devices() == ["cpu"]


async def test_care_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A solver that does not come up again is told of, and looked after all the same."""
    monkeypatch.setattr(solver, "_CARE_INTERVAL_S", 0.0)
    third_look = asyncio.Event()
    num_looks = 0

    class Failing:
        async def regain_device(self, prepare: object) -> None:
            nonlocal num_looks
            num_looks += 1
            if num_looks == 3:
                third_look.set()
            raise UnavailableError("Expected a solver process.")

    async def prepare() -> None:
        pass

    care = asyncio.create_task(solver.care_for_device(cast("SolverProcess", Failing()), prepare))
    await asyncio.wait_for(third_look.wait(), timeout=60.0)
    care.cancel()

    assert "solver: Expected a solver process." in caplog.messages


async def test_device_that_takes_its_process_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes lost on a device without a plan in between are the device's fault."""
    monkeypatch.setenv(VARIABLE, "lost:999")
    async with started() as bench:
        for num_failures in (0, 1):
            os.kill(pid_of(bench.solver), signal.SIGKILL)
            with pytest.raises(UnavailableError):
                await bench.solver.solve(job())
            await bench.solver.check_policy(job().policy, has_slow_ranks=False)
            assert bench.failures() == (0, num_failures)

        assert (await bench.solver.solve(job())).phy2log.shape == (1, 6)
        assert bench.devices() == ["cpu"]
        assert bench.value("restarts_total") == 2


class DyingChild(SolverChild):
    """A process that dies on its way to any device, as with a broken driver."""

    def wait_until_ready(self, timeout_s: float) -> Ready:
        """Die first, unless on the CPU."""
        if self._device != "cpu":
            self.kill()
        return super().wait_until_ready(timeout_s)


async def test_device_that_cannot_even_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies while it starts on a device gives way to one on the CPU."""
    monkeypatch.setattr(solver_host, "SolverChild", DyingChild)
    async with started("auto") as bench:
        assert (bench.failures(), bench.devices()) == ((0, 1), ["cpu"])
        assert (await bench.solver.solve(job())).phy2log.shape == (1, 6)


async def test_service_that_stops_while_a_process_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that began before the stop, and that the stop did not see, is not waited for."""
    bench = Bench("cpu")

    class Overtaken(SolverChild):
        def __init__(self, device: str, *, insists: bool) -> None:
            super().__init__(device, insists=insists)
            bench.solver._host.kill()

    monkeypatch.setattr(solver_host, "SolverChild", Overtaken)
    with pytest.raises(UnavailableError):
        await bench.solver.start()
    await bench.solver.stop()


async def test_solves_that_wait_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device, solves that wait are planned for together, and each has its own answer."""
    monkeypatch.setenv(VARIABLE, "lost:999")
    loads = [(9.0, 1.0, 1.0, 1.0), (1.0, 9.0, 1.0, 1.0), (1.0, 1.0, 9.0, 1.0)]
    async with started() as bench:
        async with bench.busy() as under_way:
            waiting = [asyncio.create_task(bench.solver.solve(job(load))) for load in loads]
            given_up = asyncio.create_task(bench.solver.solve(job()))
            await asyncio.sleep(0)
            given_up.cancel()
            await asyncio.sleep(0)
        await under_way
        plans = await asyncio.gather(*waiting)

        for hot, plan in enumerate(plans):
            assert plan.phy2log[0].tolist().count(hot) > 1
        assert bench.batches() == (4, 2)
        for phase in ("forecast", "plan", "measure"):
            assert bench.value("phase_seconds_count", phase=phase) == 4


@pytest.mark.parametrize("batches_on_cpu", [False, True])
async def test_solves_go_one_by_one_on_a_cpu(batches_on_cpu: bool) -> None:
    """There the first would only wait for the last, so they do not go together unless told to."""
    async with started("cpu", batches_on_cpu=batches_on_cpu) as bench:
        async with bench.busy() as under_way:
            waiting = [asyncio.create_task(bench.solver.solve(job())) for _ in range(3)]
            await asyncio.sleep(0)
        await asyncio.gather(under_way, *waiting)

        assert bench.batches() == (4, 2 if batches_on_cpu else 4)
        assert bench.devices() == ["cpu"]
        assert bench.value("device_memory_total_bytes") == 0


async def test_lost_batch() -> None:
    """A process that is lost fails all that it had; then solves go one by one for a while."""
    async with started("cpu", batches_on_cpu=True) as bench:
        pid = pid_of(bench.solver)
        os.kill(pid, signal.SIGSTOP)
        # Until all three wait, the thread that would take the first of them is held.
        release = threading.Event()
        bench.solver._thread.submit(release.wait, timeout=60.0)
        batch = [asyncio.create_task(bench.solver.solve(job())) for _ in range(3)]
        await asyncio.sleep(0)
        release.set()
        while bench.solver._queue:  # noqa: ASYNC110
            await asyncio.sleep(0)
        os.kill(pid, signal.SIGKILL)
        failures = await asyncio.gather(*batch, return_exceptions=True)
        assert all(isinstance(each, UnavailableError) for each in failures)
        assert bench.batches() == (3, 1)

        await asyncio.gather(*(bench.solver.solve(job()) for _ in range(4)))
        assert bench.batches() == (7, 5)
