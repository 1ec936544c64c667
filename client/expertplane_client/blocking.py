"""The client for threads. Everything but I/O is in `calls` and `watching`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from expertplane.v1 import plan_service_pb2 as plans_pb2

from . import calls, watching
from .connection import BlockingConnection
from .status import call_error


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from expertplane.v1 import decision_pb2, deployment_pb2, plan_pb2

    from .load import LoadForecast
    from .plan import Plan
    from .plan_diff import PlanDiff


class BlockingClient(BlockingConnection):
    """Asks a planner from a thread; method by method the same as `Client`, without `await`.

        with BlockingClient("127.0.0.1:50051") as client:
            plan = client.get_plan("prod/deepseek-v3")

    Arguments and errors are those of `Client`. Threads may share one object.
    """

    def create_deployment(
        self, name: str, spec: deployment_pb2.DeploymentSpec, *, request_id: str | None = None
    ) -> deployment_pb2.Deployment:
        """Adds a deployment and returns it; see `Client.create_deployment`."""
        return self._call(calls.create_deployment(name, spec, request_id=request_id))

    def get_deployment(self, name: str) -> deployment_pb2.Deployment:
        """Returns a deployment with its present status."""
        return self._call(calls.get_deployment(name))

    def list_deployments(self) -> list[deployment_pb2.Deployment]:
        """Returns all deployments by name, following the pages."""
        return self._drive(calls.list_deployments())

    def update_deployment(
        self,
        name: str,
        spec: deployment_pb2.DeploymentSpec,
        *,
        etag: str,
        request_id: str | None = None,
    ) -> deployment_pb2.Deployment:
        """Replaces the spec of a deployment, whole; see `Client.update_deployment`."""
        return self._call(calls.update_deployment(name, spec, etag=etag, request_id=request_id))

    def delete_deployment(
        self, name: str, *, etag: str = "", request_id: str | None = None
    ) -> None:
        """Removes a deployment with its plans; see `Client.delete_deployment`."""
        self._call(calls.delete_deployment(name, etag=etag, request_id=request_id))

    def get_load(self, deployment: str) -> LoadForecast:
        """Returns the forecast that the next plan would be made for."""
        return self._call(calls.get_load(deployment))

    def compute_plan(
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
        """Returns a plan for a load, stored nowhere; see `Client.compute_plan`."""
        return self._call(
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

    def get_plan(
        self, deployment: str, version: int | None = None, *, alias: str | None = None
    ) -> Plan:
        """Returns a plan of a deployment; see `Client.get_plan`."""
        return self._call(calls.get_plan(deployment, version, alias=alias))

    def list_plans(
        self, deployment: str, *, limit: int | None = None
    ) -> list[plan_pb2.PlanMetadata]:
        """Returns what is known about the plans, newest first; see `Client.list_plans`."""
        return self._drive(calls.list_plans(deployment, limit=limit))

    def diff_plans(self, deployment: str, from_version: int, to_version: int) -> PlanDiff:
        """Returns what changes from one plan to another; version 0 is the start placement."""
        return self._call(calls.diff_plans(deployment, from_version, to_version))

    def publish_plan(
        self,
        deployment: str,
        phy2log: NDArray[np.integer[Any]],
        *,
        comment: str = "",
        request_id: str | None = None,
        expected_head: int | None = None,
    ) -> plan_pb2.PlanMetadata:
        """Publishes a placement of the caller's own; see `Client.publish_plan`."""
        return self._call(
            calls.publish_plan(
                deployment,
                phy2log,
                comment=comment,
                request_id=request_id,
                expected_head=expected_head,
            )
        )

    def rebalance(
        self, deployment: str, *, request_id: str | None = None, expected_head: int | None = None
    ) -> decision_pb2.Decision:
        """Has the planner decide now, whatever cool-down, rest and pause say."""
        return self._call(
            calls.rebalance(deployment, request_id=request_id, expected_head=expected_head)
        )

    def roll_back(
        self,
        deployment: str,
        to_version: int,
        *,
        request_id: str | None = None,
        expected_head: int | None = None,
    ) -> plan_pb2.PlanMetadata:
        """Publishes earlier content under a new version; see `Client.roll_back`."""
        return self._call(
            calls.roll_back(
                deployment, to_version, request_id=request_id, expected_head=expected_head
            )
        )

    def pause(
        self, deployment: str, *, comment: str = "", request_id: str | None = None
    ) -> deployment_pb2.Deployment:
        """Stops automatic publication; see `Client.pause`."""
        return self._call(calls.pause(deployment, comment=comment, request_id=request_id))

    def resume(
        self, deployment: str, *, request_id: str | None = None
    ) -> deployment_pb2.Deployment:
        """Lifts a pause, and returns the deployment as it is now."""
        return self._call(calls.resume(deployment, request_id=request_id))

    def explain_decisions(
        self, deployment: str, *, after_sequence: int = 0, limit: int = 100
    ) -> list[decision_pb2.Decision]:
        """Returns the latest decisions, oldest first; see `Client.explain_decisions`."""
        return self._call(
            calls.explain_decisions(deployment, after_sequence=after_sequence, limit=limit)
        )

    def watch_plans(
        self,
        deployment: str,
        from_version: int = 0,
        *,
        on_wait: Callable[[str], None] | None = None,
    ) -> Iterator[Plan]:
        """Yields the committed plan and then every later one; see `Client.watch_plans`.

        Ends when the iteration is given up or another thread closes the client.
        """
        cursor = watching.WatchCursor(deployment, from_version, self._backoff, self._rng, on_wait)
        while not self._is_closed.is_set():
            stream = self._channel.unary_stream(
                watching.METHOD,
                request_serializer=plans_pb2.WatchPlansRequest.SerializeToString,
                response_deserializer=plans_pb2.WatchPlansResponse.FromString,
            )(cursor.request())
            try:
                for response in stream:
                    plan = cursor.on_response(response)
                    if plan is not None:
                        yield plan
            except grpc.RpcError as error:
                cursor.on_failure(call_error(error, method=watching.METHOD, address=self._address))
            finally:
                stream.cancel()
            self._is_closed.wait(cursor.delay_s())
