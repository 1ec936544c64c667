"""A peer that takes part and does not read costs the others nothing, and the planner no memory."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

import grpc
import numpy as np

from expertplane.v1 import deployment_pb2, placement_service_pb2 as pb
from expertplane_client import Client, Participant, Plan

from ..support.planner_process import PlannerProcess, running_planner, scrape
from .engines import QUICK, eventually


NAME = "test/slow-reader"
NUM_LAYERS = 64
NUM_SLOTS = 1024
NUM_PLANS = 16
WINDOW_BYTES = 64 * 1024
"""What gRPC lets a sender have on its way to a stream that is not read: less than one plan."""


def large_spec() -> deployment_pb2.DeploymentSpec:
    """A deployment whose plans are a quarter of a megabyte each."""
    return deployment_pb2.DeploymentSpec(
        layer_ids=range(NUM_LAYERS),
        num_logical_experts=NUM_SLOTS // 2,
        topology=deployment_pb2.Topology(
            num_nodes=1, ranks_per_node=4, slots_per_rank=NUM_SLOTS // 4
        ),
    )


def large_placement(number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    """A placement of the large deployment; each number's differs."""
    row = (np.arange(NUM_SLOTS, dtype=np.int32) + number) % (NUM_SLOTS // 2)
    return np.tile(row, (NUM_LAYERS, 1))


def metric(planner: PlannerProcess, name: str) -> float:
    """Returns the value of a series; -1 before there is any."""
    match = re.search(rf"^{re.escape(name)} (\S+)$", scrape(planner), re.MULTILINE)
    return float(match[1]) if match is not None else -1


def resident_mib(planner: PlannerProcess) -> float:
    """Returns how much memory the planner's process has, its solver's apart."""
    status = Path(f"/proc/{planner.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


async def test_a_peer_that_does_not_read_is_dropped(tmp_path: Path) -> None:
    """Plans that it does not take give way to newer ones; too many answers end its stream."""
    applied: list[int] = []

    async def apply(plan: Plan) -> int:
        applied.append(plan.version)
        return 0

    with running_planner(tmp_path, options=["--heartbeat-interval-s=0.5"]) as planner:
        reading = Participant(
            planner.address,
            NAME,
            "reading",
            [2, 3],
            engine_run_id="run",
            apply=apply,
            backoff=QUICK,
        )
        options = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", WINDOW_BYTES)]
        async with (
            Client(planner.address) as client,
            grpc.aio.insecure_channel(planner.address, options=options) as channel,
        ):
            await client.create_deployment(NAME, large_spec())
            call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(
                "/expertplane.v1.PlacementService/Connect"
            )()
            hello = pb.Hello(
                deployment=NAME,
                participant_id="not-reading",
                ranks=[0, 1],
                incarnation=str(uuid.uuid4()),
                engine_run_id="run",
            )
            await call.write(pb.ConnectRequest(hello=hello).SerializeToString())
            members = f'expertplane_participants{{deployment="{NAME}"}}'
            async with reading:
                await eventually(lambda: metric(planner, members) == 2)
                before_mib = resident_mib(planner)
                for number in range(1, NUM_PLANS + 1):
                    await client.publish_plan(NAME, large_placement(number))
                await eventually(lambda: applied[-1:] == [NUM_PLANS])
                dropped = metric(planner, "expertplane_outbox_dropped_messages_total")

                overflow = 'expertplane_slow_readers_total{cause="overflow"}'
                for _ in range(2000):
                    await call.write(b"\xff\xff\xff")
                await eventually(lambda: metric(planner, overflow) == 1)
                await eventually(lambda: metric(planner, members) == 1)
                await client.publish_plan(NAME, large_placement(NUM_PLANS + 1))
                await eventually(lambda: applied[-1:] == [NUM_PLANS + 1])
                grown_mib = resident_mib(planner) - before_mib
            call.cancel()

    assert dropped >= NUM_PLANS - 4
    assert grown_mib < 64
