"""The service's end of one deployment's forecast, which lives in the solver process.

The solver process may be lost, and may forget what has not been used for long. So its forecast is
written to the store now and then, and brought back from there when the process lacks it: what was
learned after the latest checkpoint is then lost, no more.

A checkpoint of a large model is 15 MB, so it does not follow every window: it follows the 1st,
2nd, 4th and 8th window since the forecast was taken up, then every 16th, and the drain. So of the
windows since then no more are lost than are kept, and never more than 15. One that could not be
written is tried again at the next of these points, so that a full disk is not written at in every
window.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from expertplane_server.core import limits
from expertplane_server.core.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    ServiceError,
    UnavailableError,
)
from expertplane_server.runtime.jobs import (
    Answer,
    Checkpoint,
    CheckpointJob,
    Expected,
    ExpectJob,
    ForecastRef,
    Lacking,
    Learned,
    LearnJob,
    SolveJob,
    Start,
)
from expertplane_server.runtime.solver import RefusedJobError


if TYPE_CHECKING:
    from expertplane_server.core.plan import Solution
    from expertplane_server.core.spec import Deployment, PolicyChoice
    from expertplane_server.runtime.jobs import ForecastStatus, Result
    from expertplane_server.runtime.services import Services

    ForecastJob = TypeVar("ForecastJob", SolveJob, LearnJob, ExpectJob)
    Samples = tuple[np.ndarray[Any, Any], ...]

logger = logging.getLogger(__name__)

_EARLY_CHECKPOINTS = (1, 2, 4, 8)
_CHECKPOINT_WINDOWS = 16
_MAX_WAITING_ENTRIES = limits.MAX_WINDOW_ENTRIES
_MAX_WAITING_WINDOWS = 1024


class ForecastKeeper:
    """Asks the solver about one deployment, one window after another.

    Windows go in the order in which `solve` and `learn` are first run: neither waits for anything
    before it stands in line.

    Args:
        deployment: whose load it is.
        services: solver, store, clock and metrics.
        label: the deployment's label in the metrics.
    """

    def __init__(self, deployment: Deployment, services: Services, label: str) -> None:
        self._name = deployment.name
        self._spec = deployment.spec
        self._ref = ForecastRef(
            deployment=deployment.name,
            generation=deployment.generation,
            parameters=deployment.spec.forecast,
        )
        self._services = services
        self._label = label
        # Who has the turn talks to the solver. Who saves takes it only for as long as that.
        self._turn = asyncio.Lock()
        self._saving = asyncio.Lock()
        self._is_begun = False
        self._is_retired = False
        self._beginning = object()
        self._num_learned = self._num_saved = self._num_tried = 0
        self._num_waiting = 0
        self._num_waiting_entries = 0

    def follow(self, deployment: Deployment) -> ForecastKeeper:
        """Returns the keeper for a deployment whose spec may have changed.

        It is another one where another forecast is to be kept; this one then takes no more
        windows, lest it should bring its own back to the solver.
        """
        is_same = (
            deployment.generation == self._ref.generation
            and deployment.spec.forecast == self._ref.parameters
        )
        if is_same:
            self._spec = deployment.spec
            return self
        self.retire()
        return ForecastKeeper(deployment, self._services, self._label)

    def retire(self) -> None:
        """Takes no more windows, and keeps no more books: another keeper does, or none."""
        self._is_retired = True

    async def solve(
        self,
        samples: Samples,
        incumbent: np.ndarray[Any, Any] | None,
        *,
        max_moved_slots: int | None = None,
        is_new: bool = True,
    ) -> Solution:
        """Returns the plan for a window, which the forecast learns.

        Args:
            samples: K times [num_layers, num_logical_experts], tokens.
            incumbent: [num_layers, num_slots] integers, the placement in force; None for none.
            max_moved_slots: slots per layer whose rank may have to fetch an expert, beside the
                budget of the policy; None for no such limit.
            is_new: the forecast has not been shown these samples; else it does not learn them.

        Raises:
            ServiceError: the solver refuses the job or is lost.
        """
        async with self._turn:
            spec = self._spec
            job = SolveJob(
                samples=await _stack(samples),
                topology=spec.topology,
                num_expert_groups=spec.num_expert_groups,
                policy=_within(spec.policy, max_moved_slots),
                rules=spec.engine_rules,
                incumbent=incumbent,
                trigger=spec.trigger,
                migration=spec.migration,
                forecast=self._ref,
                teaches=is_new,
            )
            try:
                result = await self._ask(job)
            except ServiceError as error:
                if is_new and not (isinstance(error, RefusedJobError) and error.forecast):
                    self._lose_window(error.message)
                raise
        assert isinstance(result, Answer), f"unexpected result {type(result).__name__}"
        return result.solution

    async def learn(self, samples: Samples) -> None:
        """Shows the forecast a window that nobody plans for; a failure costs that window alone."""
        num_entries = sum(sample.size for sample in samples)
        if (
            self._num_waiting >= _MAX_WAITING_WINDOWS
            or self._num_waiting_entries + num_entries > _MAX_WAITING_ENTRIES
        ):
            self._lose_window("too many others wait for the solver")
            return
        self._count_waiting(1, num_entries)
        try:
            await self._turn.acquire()
        finally:
            self._count_waiting(-1, -num_entries)
        try:
            await self._ask(LearnJob(await _stack(samples), self._ref))
        except ServiceError as error:
            self._lose_window(error.message)
        finally:
            self._turn.release()

    async def expect(self) -> Expected:
        """Returns what the forecast expects of the next samples.

        Raises:
            FailedPreconditionError: it has not been shown any load yet.
            ServiceError: the solver is lost, or the store cannot be read.
        """
        spec = self._spec
        async with self._turn:
            result = await self._ask(
                ExpectJob(
                    forecast=self._ref,
                    num_layers=spec.num_layers,
                    num_logical_experts=spec.num_logical_experts,
                )
            )
        if not isinstance(result, Expected):
            raise FailedPreconditionError(
                f"Expected a forecast of {self._name} that has been shown load, got none yet.",
                reason="NO_LOAD_YET",
            )
        return result

    async def save_if_due(self) -> None:
        """Writes a checkpoint when it is time for one."""
        if self._is_due():
            async with self._saving:
                # Another may have done it meanwhile.
                if self._is_due():
                    await self._save()

    async def save(self) -> None:
        """Writes a checkpoint, unless nothing has been learned since the last one."""
        async with self._saving:
            await self._save()

    def _is_due(self) -> bool:
        """Tells whether it is time for a checkpoint."""
        return self._num_learned >= _next_checkpoint(self._num_tried)

    async def _save(self) -> None:
        """Brings the forecast from the solver to the store."""
        try:
            async with self._turn:
                if self._num_saved == self._num_learned:
                    return
                beginning, num_learned = self._beginning, self._num_learned
                self._num_tried = num_learned
                result = await self._services.solver.run(CheckpointJob(self._ref))
            is_saved = isinstance(result, Checkpoint)  # or the solver has lost the forecast
            if isinstance(result, Checkpoint):
                await self._store(result.content)
        except ServiceError as error:
            is_saved = False
            logger.warning("%s: forecast not saved: %s", self._name, error.message)
        if is_saved and self._beginning == beginning:
            self._num_saved = num_learned
        self._count("saved" if is_saved else "failed")

    async def _store(self, content: bytes) -> None:
        """Writes a checkpoint to the store."""
        name, generation = self._name, self._ref.generation
        now_s = self._services.clock.now().wall_s
        await self._services.store.run(
            "save_forecast",
            lambda store: store.save_forecast(name, generation, content, now_s=now_s),
        )

    async def _ask(self, job: ForecastJob) -> Result:
        """Returns the result of a job, the forecast brought along where the solver lacks it."""
        if self._is_retired:
            raise UnavailableError(
                f"The forecast of {self._name} has given way to another.", reason="SPEC_CHANGED"
            )
        result: Result = Lacking()
        if self._is_begun:
            result = await self._run(job)
        if isinstance(result, Lacking):
            result = await self._begin(job)
        return result

    async def _begin(self, job: ForecastJob) -> Result:
        """Returns the result of a job that the solver needs a forecast for."""
        self._begin_anew()
        try:
            checkpoint = await self._load()
        except ServiceError as error:
            return await self._do_without(job, error)
        if checkpoint is None and isinstance(job, ExpectJob):
            return Lacking()
        start = Start(checkpoint)
        return await self._run(replace(job, forecast=replace(self._ref, start=start)))

    async def _do_without(self, job: ForecastJob, error: ServiceError) -> Result:
        """Returns the result of a job while the forecast cannot be read.

        What the solver learns by it is forgotten with the next window, which reads again: the
        checkpoint must not be written over by a forecast that knows one window.

        Raises:
            ServiceError: there is nothing to plan for, or the solver refuses or is lost.
        """
        self._count("failed")
        logger.warning("%s: forecast not read: %s", self._name, error.message)
        if not isinstance(job, SolveJob):
            raise error
        job = replace(job, forecast=replace(self._ref, start=Start(None)))
        try:
            result = await self._services.solver.run(job)
        except RefusedJobError as refusal:
            raise InvalidArgumentError(refusal.message, field=refusal.field) from refusal
        if job.teaches:
            self._lose_window("its forecast could not be read")
        return result

    async def _run(self, job: ForecastJob) -> Result:
        """Returns the result of a job, and keeps the books on what the forecast has learned."""
        try:
            result = await self._services.solver.run(job)
        except RefusedJobError as error:
            self._note(job, error.forecast)
            raise
        if isinstance(result, Answer | Learned | Expected):
            self._note(job, result.forecast)
        return result

    async def _load(self) -> bytes | None:
        """Returns the latest checkpoint, if there is one.

        Raises:
            ServiceError: the store cannot be read.
        """
        name, generation = self._name, self._ref.generation
        return await self._services.store.run(
            "forecast", lambda store: store.forecast(name, generation)
        )

    def _begin_anew(self) -> None:
        """Starts the books on a forecast that is taken up."""
        self._is_begun = False
        self._beginning = object()
        self._num_learned = self._num_saved = self._num_tried = 0

    def _note_restored(self, status: ForecastStatus, num_new: int) -> None:
        """Tells what became of a checkpoint, `num_new` windows being new since."""
        self._count("refused" if status.refusal else "restored")
        if status.refusal:
            logger.warning("%s: forecast begins with nothing: %s", self._name, status.refusal)
        else:
            num_restored = status.num_windows - num_new
            logger.info("%s: forecast restored, %d windows", self._name, num_restored)

    def _note(self, job: SolveJob | LearnJob | ExpectJob, status: ForecastStatus | None) -> None:
        """Keeps the books on what a job has done to the forecast."""
        if status is None or self._is_retired:
            return
        is_learned = isinstance(job, LearnJob) or (isinstance(job, SolveJob) and job.teaches)
        start = job.forecast.start if job.forecast is not None else None
        if start is not None and start.checkpoint is not None:
            self._note_restored(status, int(is_learned))
        self._is_begun = True
        metrics = self._services.metrics
        metrics.forecast_windows.labels(self._label).set(status.num_windows)
        self._num_learned += is_learned
        if is_learned and status.is_drifting:
            metrics.forecast_drifts.labels(self._label).inc()

    def _count(self, outcome: str) -> None:
        """Counts what became of a checkpoint."""
        self._services.metrics.forecast_checkpoints.labels(outcome).inc()

    def _count_waiting(self, num_windows: int, num_entries: int) -> None:
        """Counts windows that nobody plans for and that have not had their turn."""
        self._num_waiting += num_windows
        self._num_waiting_entries += num_entries

    def _lose_window(self, why: str) -> None:
        """Counts a window that the forecast is not shown."""
        self._services.metrics.forecast_lost_windows.labels(self._label).inc()
        logger.warning("%s: a window is not learned: %s", self._name, why)


def _within(policy: PolicyChoice, max_moved_slots: int | None) -> PolicyChoice:
    """Returns a policy that keeps to a further budget."""
    budgets = [each for each in (policy.max_moved_slots, max_moved_slots) if each is not None]
    return replace(policy, max_moved_slots=min(budgets, default=None))


async def _stack(samples: Samples) -> np.ndarray[Any, Any]:
    """Returns a window as one array; a large one takes longer than the event loop may stand."""
    return await asyncio.to_thread(np.stack, samples)


def _next_checkpoint(num_saved: int) -> int:
    """Returns the window that is followed by the checkpoint after that of window `num_saved`."""
    early = (number for number in _EARLY_CHECKPOINTS if number > num_saved)
    return next(early, (num_saved // _CHECKPOINT_WINDOWS + 1) * _CHECKPOINT_WINDOWS)
