"""PlanService: plans computed, looked up, listed, watched and compared."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from expertplane.v1 import plan_service_pb2 as pb
from expertplane_server.core.errors import (
    ExhaustedError,
    FailedPreconditionError,
    InvalidArgumentError,
    UnavailableError,
)
from expertplane_server.core.limits import MAX_COMPUTES, MAX_COUNTER, MAX_STREAMS
from expertplane_server.core.spec import check_name
from expertplane_server.rpc.convert.diffs import check_changes, diff_to
from expertplane_server.rpc.convert.fields import counter, page_size
from expertplane_server.rpc.convert.jobs import job_from
from expertplane_server.rpc.convert.plans import decision_to, metadata_to, solution_to
from expertplane_server.runtime.directory import no_plan_yet
from expertplane_server.runtime.jobs import Scheduled, ScheduleJob


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    import numpy as np

    from expertplane.v1 import plan_pb2
    from expertplane_server.core.plan import Plan, Transfers
    from expertplane_server.core.spec import DeploymentSpec
    from expertplane_server.rpc.convert.plans import PlanWriter
    from expertplane_server.runtime.directory import Directory


class PlanServicer:
    """Answers calls about plans.

    Args:
        directory: the deployments.
        plans: writes stored plans.
        policies: names of the policies that the solver knows.
    """

    def __init__(self, directory: Directory, plans: PlanWriter, policies: Collection[str]) -> None:
        self._directory = directory
        self._plans = plans
        self._policies = policies
        self._num_solver_calls = 0
        self._num_watches = 0
        # Few of these calls wait in the solver's queue, so that they hold no decision up for long.
        self._turn = asyncio.Semaphore(2)

    async def compute(self, request: pb.ComputePlanRequest) -> pb.ComputePlanResponse:
        """Plans for the load of the request; stores nothing."""
        async with self._solver_call():
            # Up to 64 MiB are checked and the answer's maps are made in a thread.
            job = await asyncio.to_thread(job_from, request, self._policies)
            async with self._turn:
                solution = await self._directory.services.solver.solve(job)
            plan = await asyncio.to_thread(
                solution_to, solution, omit_derived_maps=request.omit_derived_maps
            )
        return pb.ComputePlanResponse(plan=plan)

    async def diff(self, request: pb.DiffPlansRequest) -> pb.DiffPlansResponse:
        """Compares two plans of a deployment."""
        name = check_name(request.deployment, at="deployment")
        versions = [counter(getattr(request, at), at) for at in ("from_version", "to_version")]
        group = self._directory.get(name).group
        # Taken together, before any wait: the spec may change meanwhile, and shapes with it.
        spec, initial = group.deployment.spec, group.initial
        async with self._solver_call():
            before, after = [
                await self._map(name, version, spec) if version else initial
                for version in versions
            ]
            # The solver takes seconds for what is too long to show in the end.
            check_changes(before, after)
            job = ScheduleJob(
                before=before,
                after=after,
                topology=spec.topology,
                num_logical_experts=spec.num_logical_experts,
                migration=spec.migration,
            )
            transfers = await self._schedule(job)
            return await asyncio.to_thread(diff_to, job, transfers, request.from_version)

    async def _schedule(self, job: ScheduleJob) -> Transfers | None:
        """Returns the way from one placement to another; None where it is too long to show.

        Raises:
            FailedPreconditionError: one of them is no placement on the present ranks.
            ServiceError: the solver cannot be asked now.
        """
        try:
            async with self._turn:
                result = await self._directory.services.solver.run(job)
        except InvalidArgumentError as error:
            raise FailedPreconditionError(error.message, reason="PLANS_NOT_COMPARABLE") from error
        assert isinstance(result, Scheduled), f"unexpected result {type(result).__name__}"
        return result.transfers

    async def _map(self, name: str, version: int, spec: DeploymentSpec) -> np.ndarray[Any, Any]:
        """Returns the placement of a version.

        Raises:
            NotFoundError: there is no such version.
            FailedPreconditionError: it is for other layers, slots or experts than the spec.
        """
        solution = (await self._directory.stored_plan(name, version)).draft.solution
        wanted = (*spec.map_shape, spec.num_logical_experts)
        got = (*solution.phy2log.shape, solution.num_logical_experts)
        if got != wanted:
            raise FailedPreconditionError(
                f"Expected plans of {wanted[0]} layers, {wanted[1]} slots, {wanted[2]} experts, "
                f"got {got[0]}, {got[1]} and {got[2]} in version {version}.",
                reason="PLANS_NOT_COMPARABLE",
            )
        return solution.phy2log

    @asynccontextmanager
    async def _solver_call(self) -> AsyncIterator[None]:
        """Counts a call that needs the solver.

        Raises:
            ExhaustedError: too many of them are in flight.
        """
        if self._num_solver_calls >= MAX_COMPUTES:
            raise ExhaustedError(
                f"Expected at most {MAX_COMPUTES} calls in flight that need the solver.",
                retry_after_s=1.0,
                reason="SOLVER_BUSY",
            )
        self._num_solver_calls += 1
        try:
            yield
        finally:
            self._num_solver_calls -= 1

    async def get(self, request: pb.GetPlanRequest) -> pb.GetPlanResponse:
        """Returns one plan."""
        name = check_name(request.deployment, at="deployment")
        if request.WhichOneof("selector") == "version":
            plan = await self._directory.stored_plan(name, counter(request.version, "version"))
        else:
            plan = await self._plan_of_role(name, request.alias)
        message = await self._write(plan, request.omit_derived_maps)
        return pb.GetPlanResponse(plan=message)

    async def list(self, request: pb.ListPlansRequest) -> pb.ListPlansResponse:
        """Returns a page of plans, newest first; the token is the page's lowest version."""
        name = check_name(request.deployment, at="deployment")
        size = page_size(request.page_size)
        below = _page_token(request.page_token)
        plans = await self._directory.stored_plans(name, below=below, limit=size + 1)
        token = str(plans[size - 1].version) if len(plans) > size else ""
        page = [metadata_to(plan) for plan in plans[:size]]
        return pb.ListPlansResponse(plans=page, next_page_token=token)

    async def watch(self, request: pb.WatchPlansRequest) -> AsyncIterator[pb.WatchPlansResponse]:
        """Sends the committed plan and every later one that the reader is quick enough for."""
        name = check_name(request.deployment, at="deployment")
        if self._num_watches >= MAX_STREAMS:
            raise ExhaustedError(
                f"Expected at most {MAX_STREAMS} watches.",
                retry_after_s=30.0,
                reason="TOO_MANY_STREAMS",
            )
        self._num_watches += 1
        try:
            async for response in self._watch(name, request):
                yield response
        finally:
            self._num_watches -= 1

    async def _watch(
        self, name: str, request: pb.WatchPlansRequest
    ) -> AsyncIterator[pb.WatchPlansResponse]:
        """Sends what is committed, for ever."""
        hub = self._directory.services.hub
        wanted = counter(request.from_version, "from_version")
        told: pb.WatchState | None = None
        while not hub.is_closed:
            plan = hub.latest(name)
            if plan is not None and plan.version >= wanted:
                wanted, told = plan.version + 1, pb.WATCH_STATE_WAITING
                message = await self._write(plan, request.omit_derived_maps)
                yield pb.WatchPlansResponse(epoch=self._directory.epoch, plan=message)
                # The reader took its time: look again before waiting.
                continue
            state = (
                pb.WATCH_STATE_WAITING if hub.knows(name) else pb.WATCH_STATE_DEPLOYMENT_UNKNOWN
            )
            if state == told:
                await hub.changed(name)
                continue
            told = state
            yield pb.WatchPlansResponse(epoch=self._directory.epoch, state=state)
        raise UnavailableError("The planner is draining; watch again.", reason="DRAINING")

    async def explain(self, request: pb.ExplainDecisionsRequest) -> pb.ExplainDecisionsResponse:
        """Returns the latest decisions."""
        driver = self._directory.get(check_name(request.deployment, at="deployment"))
        limit = page_size(request.limit, at="limit")
        decisions = driver.group.journal.after(request.after_sequence, limit)
        return pb.ExplainDecisionsResponse(decisions=map(decision_to, decisions))

    async def _write(self, plan: Plan, omit_derived_maps: bool) -> plan_pb2.Plan:
        """Writes a plan; large derived maps take longer than the event loop may stand still."""
        return await asyncio.to_thread(
            self._plans.write, plan, omit_derived_maps=omit_derived_maps
        )

    async def _plan_of_role(self, name: str, alias: int) -> Plan:
        """Returns the plan of a role.

        Raises:
            InvalidArgumentError: there is no such role.
            NotFoundError: there is no such deployment, or no plan in this role.
        """
        if alias not in pb.PlanAlias.values():
            raise InvalidArgumentError(f"Expected a PlanAlias, got {alias}.", field="alias")
        if alias == pb.PLAN_ALIAS_LATEST:
            return await self._directory.latest_plan(name)
        plan = self._directory.get(name).group.committed
        if plan is None:
            raise no_plan_yet(name)
        return plan


def _page_token(token: str) -> int:
    """Returns the version that a page stays below; 0 for the first page."""
    if not token:
        return 0
    if not token.isascii() or not token.isdigit() or not 0 < int(token[:20]) <= MAX_COUNTER:
        raise InvalidArgumentError(
            f"Expected a token of an earlier answer, got {token[:80]!r}.", field="page_token"
        )
    return int(token[:20])
