"""PlanService: plans computed, looked up, listed and watched."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from expertplane.v1 import plan_service_pb2 as pb
from expertplane_server.core.errors import (
    ExhaustedError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)
from expertplane_server.core.limits import MAX_COMPUTES, MAX_COUNTER, MAX_STREAMS
from expertplane_server.core.spec import check_name
from expertplane_server.rpc.convert.fields import page_size
from expertplane_server.rpc.convert.jobs import job_from
from expertplane_server.rpc.convert.plans import decision_to, metadata_to, solution_to


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from expertplane.v1 import plan_pb2
    from expertplane_server.core.plan import Plan
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
        self._num_computes = 0
        self._num_watches = 0
        # Few of these calls wait in the solver's queue, so that they hold no decision up for long.
        self._turn = asyncio.Semaphore(2)

    async def compute(self, request: pb.ComputePlanRequest) -> pb.ComputePlanResponse:
        """Plans for the load of the request; stores nothing."""
        if self._num_computes >= MAX_COMPUTES:
            raise ExhaustedError(
                f"Expected at most {MAX_COMPUTES} ComputePlan calls in flight.",
                retry_after_s=1.0,
                reason="SOLVER_BUSY",
            )
        self._num_computes += 1
        try:
            # Up to 64 MiB are checked and the answer's maps are made in a thread.
            job = await asyncio.to_thread(job_from, request, self._policies)
            async with self._turn:
                solution = await self._directory.services.solver.solve(job)
            plan = await asyncio.to_thread(
                solution_to, solution, omit_derived_maps=request.omit_derived_maps
            )
        finally:
            self._num_computes -= 1
        return pb.ComputePlanResponse(plan=plan)

    async def get(self, request: pb.GetPlanRequest) -> pb.GetPlanResponse:
        """Returns one plan."""
        name = check_name(request.deployment, at="deployment")
        if request.WhichOneof("selector") == "version":
            plan = await self._directory.stored_plan(name, _version(request.version, "version"))
        else:
            plan = self._committed(name, request.alias)
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
        wanted = _version(request.from_version, "from_version")
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
        """Returns the latest decisions since the planner started."""
        driver = self._directory.get(check_name(request.deployment, at="deployment"))
        limit = page_size(request.limit, at="limit")
        decisions = driver.group.journal.after(request.after_sequence, limit)
        return pb.ExplainDecisionsResponse(decisions=map(decision_to, decisions))

    async def _write(self, plan: Plan, omit_derived_maps: bool) -> plan_pb2.Plan:
        """Writes a plan; large derived maps take longer than the event loop may stand still."""
        return await asyncio.to_thread(
            self._plans.write, plan, omit_derived_maps=omit_derived_maps
        )

    def _committed(self, name: str, alias: int) -> Plan:
        """Returns the plan of a role. While every plan commits at once, the roles coincide."""
        if alias not in pb.PlanAlias.values():
            raise InvalidArgumentError(f"Expected a PlanAlias, got {alias}.", field="alias")
        plan = self._directory.get(name).group.committed
        if plan is None:
            raise NotFoundError(
                f"Expected a committed plan of {name}, got none yet.", reason="NO_PLAN_YET"
            )
        return plan


def _version(value: int, at: str) -> int:
    """Returns a version that the store can hold."""
    if value > MAX_COUNTER:
        raise InvalidArgumentError(f"Expected at most 2^63 - 1, got {value}.", field=at)
    return value


def _page_token(token: str) -> int:
    """Returns the version that a page stays below; 0 for the first page."""
    if not token:
        return 0
    if not token.isascii() or not token.isdigit() or not 0 < int(token[:20]) <= MAX_COUNTER:
        raise InvalidArgumentError(
            f"Expected a token of an earlier answer, got {token[:80]!r}.", field="page_token"
        )
    return int(token[:20])
