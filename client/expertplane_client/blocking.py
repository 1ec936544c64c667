"""The client for threads. Everything but I/O is in `calls` and `watching`."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from expertplane.v1 import plan_service_pb2 as plans_pb2

from . import calls, watching
from .backoff import Backoff
from .channel import check_address, open_blocking_channel
from .status import call_error


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    import numpy as np
    from numpy.typing import NDArray

    from expertplane.v1 import decision_pb2, deployment_pb2, plan_pb2

    from .plan import Plan


T = TypeVar("T")


class BlockingClient:
    """Asks a planner from a thread; method by method the same as `Client`, without `await`.

        with BlockingClient("127.0.0.1:50051") as client:
            plan = client.get_plan("prod/deepseek-v3")

    Arguments and errors are those of `Client`. Threads may share one object.
    """

    def __init__(
        self,
        address: str,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        timeout_s: float | None = None,
        wait_for_ready: bool = True,
        backoff: Backoff | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._address = check_address(address)
        self._timeout_s = timeout_s
        self._wait_for_ready = wait_for_ready
        self._backoff = backoff or Backoff()
        self._rng = rng or random.Random()
        self._is_closed = threading.Event()
        self._channel = open_blocking_channel(address, credentials)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the channel for good; watches end, other calls in flight are cancelled."""
        self._is_closed.set()
        self._channel.close()

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

    def delete_deployment(
        self, name: str, *, etag: str = "", request_id: str | None = None
    ) -> None:
        """Removes a deployment with its plans; see `Client.delete_deployment`."""
        self._call(calls.delete_deployment(name, etag=etag, request_id=request_id))

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

    def get_plan(self, deployment: str, version: int | None = None) -> Plan:
        """Returns a plan of a deployment: the committed one, or the one of a version."""
        return self._call(calls.get_plan(deployment, version))

    def list_plans(
        self, deployment: str, *, limit: int | None = None
    ) -> list[plan_pb2.PlanMetadata]:
        """Returns what is known about the plans, newest first; see `Client.list_plans`."""
        return self._drive(calls.list_plans(deployment, limit=limit))

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

    def _drive(self, flow: calls.Flow[T]) -> T:
        answer = None
        while True:
            try:
                call = flow.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            answer = self._call(call)

    def _call(self, call: calls.Call[T]) -> T:
        invoke = self._channel.unary_unary(
            call.method,
            request_serializer=type(call.request).SerializeToString,
            response_deserializer=call.response_class.FromString,
        )
        try:
            response = invoke(
                call.request,
                timeout=call.timeout_s if self._timeout_s is None else self._timeout_s,
                wait_for_ready=self._wait_for_ready and call.is_read,
            )
        except grpc.RpcError as error:
            raise call_error(error, method=call.method, address=self._address) from error
        return call.parse(response)
