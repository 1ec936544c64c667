"""The running service as operators and tools see it."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from expertplane.v1 import placement_service_pb2 as pb
from expertplane.wire import encode_tensor
from expertplane_client import Backoff, Client, Participant

from ..support.planner_process import PlannerProcess, run_program, running_planner, scrape
from .deployments import hot_counts, small_spec
from .engines import eventually


if TYPE_CHECKING:
    from pathlib import Path

    from expertplane_client import Plan


def test_health_serves_every_name_that_probes_ask_for(planner: PlannerProcess) -> None:
    """The empty name, liveness, readiness and leader all answer SERVING once it is ready."""
    with grpc.insecure_channel(planner.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answers = {
            name: stub.Check(health_pb2.HealthCheckRequest(service=name)).status
            for name in ("", "liveness", "readiness", "leader")
        }

    assert set(answers.values()) == {health_pb2.HealthCheckResponse.SERVING}


def test_reflection_names_the_services(planner: PlannerProcess) -> None:
    """With --reflection a tool such as grpcurl finds the three services."""
    with grpc.insecure_channel(planner.address) as channel:
        names = set(ProtoReflectionDescriptorDatabase(channel).get_services())

    assert names >= {
        "expertplane.v1.PlacementService",
        "expertplane.v1.PlanService",
        "expertplane.v1.DeploymentService",
    }


def test_metrics_are_scraped_from_a_port_of_their_own(planner: PlannerProcess) -> None:
    """The scrape holds the loop lag and the epoch, and every name has our prefix."""
    lines = scrape(planner).splitlines()

    assert "expertplane_epoch 1.0" in lines
    assert any(line.startswith("expertplane_event_loop_lag_seconds_bucket") for line in lines)
    assert all(line.startswith(("#", "expertplane_")) for line in lines)


async def answer(call: grpc.aio.StreamStreamCall[bytes, pb.ConnectResponse]) -> pb.ConnectResponse:
    """Returns the planner's next message."""
    response = await call.read()
    assert isinstance(response, pb.ConnectResponse)
    return response


async def test_a_malformed_report_is_refused_with_its_field_and_the_stream_lives(
    planner: PlannerProcess,
) -> None:
    """After unparsable bytes, a wrong shape and a NaN the same stream takes a good report."""
    name = "test/malformed"
    async with Client(planner.address) as client:
        await client.create_deployment(name, small_spec())
    hello = pb.Hello(
        deployment=name,
        participant_id="node-0",
        ranks=range(4),
        incarnation=str(uuid.uuid4()),
        engine_run_id="run",
    )
    not_a_number = hot_counts(0).astype(np.float32)
    not_a_number[1, 2, 3] = np.nan

    def report(sequence: int, counts: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes:
        load = pb.LoadReport(
            sequence=sequence,
            steps_per_sample=1,
            kind=pb.LOAD_KIND_LOGICAL,
            scope=pb.LOAD_SCOPE_PARTICIPANT,
            counts=encode_tensor(counts),
        )
        return pb.ConnectRequest(load_report=load).SerializeToString()

    async with grpc.aio.insecure_channel(planner.address) as channel:
        call: grpc.aio.StreamStreamCall[bytes, pb.ConnectResponse] = channel.stream_stream(
            "/expertplane.v1.PlacementService/Connect",
            response_deserializer=pb.ConnectResponse.FromString,
        )()
        await call.write(pb.ConnectRequest(hello=hello).SerializeToString())
        welcome = await answer(call)
        await call.write(b"\xff\xff\xff")
        unparsable = await answer(call)
        await call.write(report(2, hot_counts(0)[:, :2]))
        wrong_shape = await answer(call)
        await call.write(report(3, not_a_number))
        nan = await answer(call)
        await call.write(report(4, hot_counts(0)))
        good = await answer(call)
        await call.done_writing()

    assert welcome.HasField("welcome")
    assert unparsable.refused.problem.reason == "UNPARSABLE"
    assert wrong_shape.refused.sequence == 2
    assert wrong_shape.refused.problem.field == "load_report.counts.shape"
    assert nan.refused.problem.field == "load_report.counts.data"
    assert nan.refused.problem.message == (
        "Expected finite counts from 0 to 2^53, got nan at [1, 2, 3]."
    )
    assert good.report_ack.sequence == 4


async def test_sigterm_drains(tmp_path: Path) -> None:
    """Participants and watchers are sent away, the exit code is 0, both come back later."""
    name = "test/drain"
    planner = PlannerProcess(tmp_path)
    try:
        async with Client(planner.address) as client:
            await client.create_deployment(name, small_spec())

        async def apply(plan: Plan) -> int:
            return 0

        participant = Participant(
            planner.address,
            name,
            "node-0",
            range(4),
            engine_run_id="run",
            apply=apply,
            backoff=Backoff(initial_s=0.05, max_s=0.2),
        )
        async with participant, Client(planner.address) as client:
            versions: list[int] = []

            async def watch() -> None:
                async for plan in client.watch_plans(name):
                    versions.append(plan.version)

            watcher = asyncio.create_task(watch())
            participant.report(hot_counts(1), first_step=0)
            await eventually(lambda: versions == [1])
            assert await asyncio.to_thread(planner.terminate) == 0
            await eventually(lambda: not participant.is_connected)

            planner = PlannerProcess(tmp_path, listen=planner.address)
            await eventually(lambda: participant.is_connected)
            participant.report(hot_counts(9), first_step=2)
            await eventually(lambda: versions == [1, 2])
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
    finally:
        planner.kill()

    assert "draining" in planner.log.read_text()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--listen=0.0.0.0:0"], "loopback"),
        (["--device=tpu"], "auto, cpu or cuda:N"),
        (["--store=mysql://x"], "sqlite:///path"),
        (["--heartbeat-interval-s=0"], "more than 0"),
    ],
    ids=["listen", "device", "store", "heartbeat"],
)
def test_a_bad_setting_is_refused_before_anything_starts(
    options: list[str], expected: str
) -> None:
    """The command ends with exit code 1 and one line that says what was expected."""
    done = run_program("serve", "--metrics=", *options)

    assert done.returncode == 1
    assert expected in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_log_can_be_read_by_machines(tmp_path: Path) -> None:
    """With --log-format json every line is a JSON object."""
    with running_planner(tmp_path, options=["--log-format=json"]) as planner:
        pass

    entries = [json.loads(line) for line in planner.log.read_text().splitlines()]
    assert any("serving on" in entry["message"] for entry in entries)
