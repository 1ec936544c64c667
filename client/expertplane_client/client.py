"""The client for asyncio. Everything but I/O is in `calls` and `watching`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc.aio

from expertplane.v1 import plan_service_pb2 as plans_pb2

from . import calls, watching
from .connection import Connection
from .status import call_error


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from expertplane.v1 import decision_pb2, deployment_pb2, plan_pb2

    from .load import LoadForecast
    from .plan import Plan
    from .plan_diff import PlanDiff


class Client(Connection):
    """Asks a planner, over one channel.

        async with Client("127.0.0.1:50051") as client:
            plan = await client.get_plan("prod/deepseek-v3")

    Every method raises a `CallError` when the planner refuses or cannot be asked, `ProtocolError`
    when its answer breaks the contract, and `InputError` for arguments that cannot be sent.

    What changes something takes a `request_id`, which makes a repeated call return the first
    answer: None draws a new UUID. With one, the call is sent once more by itself where the planner
    goes away before it answers. `expected_head` is the head version that the caller has seen: the
    call fails with `AbortedError` when it has moved on; None skips the check.

    Arguments are those of `Connection`.
    """

    async def create_deployment(
        self, name: str, spec: deployment_pb2.DeploymentSpec, *, request_id: str | None = None
    ) -> deployment_pb2.Deployment:
        """Adds a deployment and returns it.

        Args:
            name: "namespace/name".
            spec: What to plan for.
            request_id: See `Client`.
        """
        return await self._call(calls.create_deployment(name, spec, request_id=request_id))

    async def get_deployment(self, name: str) -> deployment_pb2.Deployment:
        """Returns a deployment with its present status."""
        return await self._call(calls.get_deployment(name))

    async def list_deployments(self) -> list[deployment_pb2.Deployment]:
        """Returns all deployments by name, following the pages."""
        return await self._drive(calls.list_deployments())

    async def update_deployment(
        self,
        name: str,
        spec: deployment_pb2.DeploymentSpec,
        *,
        etag: str,
        request_id: str | None = None,
    ) -> deployment_pb2.Deployment:
        """Replaces the spec of a deployment, whole, and returns what is now in force.

        Args:
            name: "namespace/name".
            spec: The new spec; a changed topology starts a new generation.
            etag: Etag that was read; the call fails with `AbortedError` when it is not current.
            request_id: See `Client`.
        """
        return await self._call(
            calls.update_deployment(name, spec, etag=etag, request_id=request_id)
        )

    async def delete_deployment(
        self, name: str, *, etag: str = "", request_id: str | None = None
    ) -> None:
        """Removes a deployment with its plans.

        Args:
            name: "namespace/name".
            etag: Etag that was read, to delete nothing newer; empty deletes whatever is there.
            request_id: See `Client`.
        """
        await self._call(calls.delete_deployment(name, etag=etag, request_id=request_id))

    async def get_load(self, deployment: str) -> LoadForecast:
        """Returns the forecast that the next plan would be made for."""
        return await self._call(calls.get_load(deployment))

    async def compute_plan(
        self,
        load: NDArray[Any],
        *,
        num_nodes: int,
        num_ranks: int,
        num_slots: int,
        masked_ranks: Sequence[int] = (),
        rank_capacities: Sequence[float] | None = None,
        num_expert_groups: int = 1,
        mode: str = "auto",
        policy: str = "",
        spill: int = 0,
        seed: int = 0,
        policy_parameters: Mapping[str, str] | None = None,
        incumbent: NDArray[np.integer[Any]] | None = None,
        max_moved_slots_per_layer: int | None = None,
    ) -> Plan:
        """Returns a plan for a load; nothing is stored, and its version is 0.

        Args:
            load: [num_layers, num_logical_experts] or, for samples, [num_samples, num_layers,
                num_logical_experts], tokens, integers or floats. Not mutated.
            num_nodes: Domains of fast links; divides num_ranks.
            num_ranks: Expert-parallel ranks; divides num_slots.
            num_slots: Slots per layer over all ranks.
            masked_ranks: Ranks that are lost, ascending; the plan holds -1 in their slots.
            rank_capacities: [num_ranks], what each rank gets done in the same time; None is the
                same for all.
            num_expert_groups: Routing groups of consecutive logical experts.
            mode: "auto", "hierarchical", "global" or "soft-hierarchical".
            policy: Name of the algorithm; empty takes the planner's default.
            spill: Replicas per layer that may leave their expert group's node, in
                soft-hierarchical mode.
            seed: Seed for policies that draw random numbers.
            policy_parameters: Parameters of the policy by name, values written as in TOML.
            incumbent: [num_layers, num_slots], the placement in force, if there is one: the plan
                then moves as little as it can from there, and says what moves.
            max_moved_slots_per_layer: Slots of each layer whose rank may have to fetch an expert;
                None sets no limit. Counts against the incumbent.
        """
        return await self._call(
            calls.compute_plan(
                load,
                num_nodes=num_nodes,
                num_ranks=num_ranks,
                num_slots=num_slots,
                masked_ranks=masked_ranks,
                rank_capacities=rank_capacities,
                num_expert_groups=num_expert_groups,
                mode=mode,
                policy=policy,
                spill=spill,
                seed=seed,
                policy_parameters=policy_parameters,
                incumbent=incumbent,
                max_moved_slots_per_layer=max_moved_slots_per_layer,
            )
        )

    async def get_plan(
        self, deployment: str, version: int | None = None, *, alias: str | None = None
    ) -> Plan:
        """Returns a plan of a deployment.

        Args:
            deployment: "namespace/name".
            version: Which one; None goes by the alias.
            alias: "committed", as without a version, or "latest": the highest version, committed
                or not.
        """
        return await self._call(calls.get_plan(deployment, version, alias=alias))

    async def list_plans(
        self, deployment: str, *, limit: int | None = None
    ) -> list[plan_pb2.PlanMetadata]:
        """Returns what is known about the plans of a deployment, newest first, without their maps.

        Args:
            deployment: "namespace/name".
            limit: The most plans to return; None returns all, following the pages.
        """
        return await self._drive(calls.list_plans(deployment, limit=limit))

    async def diff_plans(self, deployment: str, from_version: int, to_version: int) -> PlanDiff:
        """Returns what changes from one plan to another; version 0 is the start placement."""
        return await self._call(calls.diff_plans(deployment, from_version, to_version))

    async def publish_plan(
        self,
        deployment: str,
        phy2log: NDArray[np.integer[Any]],
        *,
        comment: str = "",
        request_id: str | None = None,
        expected_head: int | None = None,
    ) -> plan_pb2.PlanMetadata:
        """Publishes a placement of the caller's own, and returns what is told about the new plan.

        Args:
            deployment: "namespace/name".
            phy2log: [num_layers, num_slots], the logical expert of every slot; -1 in the slots of
                masked ranks. Not mutated.
            comment: For people; at most 1024 characters.
            request_id: See `Client`.
            expected_head: See `Client`.
        """
        return await self._call(
            calls.publish_plan(
                deployment,
                phy2log,
                comment=comment,
                request_id=request_id,
                expected_head=expected_head,
            )
        )

    async def rebalance(
        self, deployment: str, *, request_id: str | None = None, expected_head: int | None = None
    ) -> decision_pb2.Decision:
        """Has the planner decide now, whatever cool-down, rest and pause say."""
        return await self._call(
            calls.rebalance(deployment, request_id=request_id, expected_head=expected_head)
        )

    async def roll_back(
        self,
        deployment: str,
        to_version: int,
        *,
        request_id: str | None = None,
        expected_head: int | None = None,
    ) -> plan_pb2.PlanMetadata:
        """Publishes the content of an earlier version under a new one, and returns the new plan.

        Args:
            deployment: "namespace/name".
            to_version: Whose content comes back; 0 is the engine's start placement.
            request_id: See `Client`.
            expected_head: See `Client`.
        """
        return await self._call(
            calls.roll_back(
                deployment, to_version, request_id=request_id, expected_head=expected_head
            )
        )

    async def pause(
        self, deployment: str, *, comment: str = "", request_id: str | None = None
    ) -> deployment_pb2.Deployment:
        """Stops automatic publication, and returns the deployment as it is now.

        Args:
            deployment: "namespace/name".
            comment: Why, for people; at most 1024 characters.
            request_id: See `Client`.
        """
        return await self._call(calls.pause(deployment, comment=comment, request_id=request_id))

    async def resume(
        self, deployment: str, *, request_id: str | None = None
    ) -> deployment_pb2.Deployment:
        """Lifts a pause, and returns the deployment as it is now."""
        return await self._call(calls.resume(deployment, request_id=request_id))

    async def explain_decisions(
        self, deployment: str, *, after_sequence: int = 0, limit: int = 100
    ) -> list[decision_pb2.Decision]:
        """Returns the latest decisions with their reasons and numbers, oldest first.

        Args:
            deployment: "namespace/name".
            after_sequence: Leaves out decisions up to this one.
            limit: The most decisions to return, 1 to 1000.
        """
        return await self._call(
            calls.explain_decisions(deployment, after_sequence=after_sequence, limit=limit)
        )

    async def watch_plans(
        self,
        deployment: str,
        from_version: int = 0,
        *,
        on_wait: Callable[[str], None] | None = None,
    ) -> AsyncIterator[Plan]:
        """Yields the committed plan and then every later one; versions may be skipped.

        Goes on by version when the planner was away, and waits for a deployment that does not
        exist yet. Ends when the iteration is given up or the client is closed.

        Args:
            deployment: "namespace/name".
            from_version: The lowest version worth having; 0 for whatever is committed.
            on_wait: Told, in a sentence for people, what the watch waits for.
        """
        cursor = watching.WatchCursor(deployment, from_version, self._backoff, self._rng, on_wait)
        while not self._is_closed:
            stream = self._open().unary_stream(
                watching.METHOD,
                request_serializer=plans_pb2.WatchPlansRequest.SerializeToString,
                response_deserializer=plans_pb2.WatchPlansResponse.FromString,
            )(cursor.request())
            try:
                async for response in stream:
                    plan = cursor.on_response(response)
                    if plan is not None:
                        yield plan
            except grpc.aio.AioRpcError as error:
                cursor.on_failure(call_error(error, method=watching.METHOD, address=self._address))
            except asyncio.CancelledError:
                # gRPC raises it for a call that `close` has cancelled as well as for the task.
                if not self._is_closed or _is_cancelled():
                    raise
            finally:
                stream.cancel()
            await asyncio.sleep(cursor.delay_s())


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
