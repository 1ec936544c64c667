"""Many light participants in one process: bare streams that report load and note what comes.

Run by `fleet.py` as a process of its own, so that their work is not the planner's. They check
nothing and keep no plans: what is measured is the planner, not the client.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
import numpy as np

from expertplane.v1 import placement_service_pb2 as pb
from expertplane.wire import encode_tensor
from expertplane_client import AbortedError, Client, FailedPreconditionError
from expertplane_client.balance import initial_phy2log


METHOD = "/expertplane.v1.PlacementService/Connect"
_PRIVATE = [("grpc.use_local_subchannel_pool", 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What the participants do.

    Attributes:
        num_deployments: each has `num_participants` of one rank each.
        slots_per_rank: of every rank.
        interval_s: between two reports of a participant.
        settle_s: time to connect and to warm up, which is not measured.
        measured_s: time in which reports are measured, and nothing else is asked for.
        num_publications: placements published by hand after that, one a second at most.
    """

    address: str
    num_deployments: int
    num_participants: int
    num_layers: int
    num_experts: int
    slots_per_rank: int
    interval_s: float
    settle_s: float
    measured_s: float
    num_publications: int


@dataclass(slots=True)
class Record:
    """What was seen.

    Attributes:
        acked_s: from a report's write to its ReportAck, for each.
        arrived_s: by deployment and version, when its permission to switch reached whom.
    """

    is_on: bool = False
    acked_s: list[float] = field(default_factory=list)
    arrived_s: dict[tuple[str, int], list[float]] = field(
        default_factory=lambda: defaultdict(list)
    )
    num_refused: int = 0


class Sidecar:
    """One participant with a connection of its own."""

    def __init__(self, load: Load, name: str, rank: int, record: Record) -> None:
        self._load, self._name, self._rank, self._record = load, name, rank, record
        self._sent_s: dict[int, float] = {}
        self._applied = pb.PlanRef()
        # A call takes one write at a time.
        self._outbox: asyncio.Queue[pb.ConnectRequest] = asyncio.Queue()
        rng = np.random.default_rng(rank)
        counts = rng.integers(0, 64, (1, load.num_layers, load.num_experts), dtype=np.int32)
        self._counts = encode_tensor(counts)

    async def run(self, offset_s: float) -> None:
        """Connects, then reports until it is cancelled."""
        async with grpc.aio.insecure_channel(self._load.address, options=_PRIVATE) as channel:
            call = channel.stream_stream(
                METHOD,
                request_serializer=pb.ConnectRequest.SerializeToString,
                response_deserializer=pb.ConnectResponse.FromString,
            )()
            self._say(pb.ConnectRequest(hello=self._hello()))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(call))
                tasks.create_task(self._write(call))
                tasks.create_task(self._report(offset_s))
                tasks.create_task(self._beat())

    def _say(self, request: pb.ConnectRequest) -> None:
        self._outbox.put_nowait(request)

    async def _write(self, call: Any) -> None:
        while True:
            await call.write(await self._outbox.get())

    def _hello(self) -> pb.Hello:
        return pb.Hello(
            deployment=self._name,
            participant_id=f"sidecar-{self._rank}",
            ranks=[self._rank],
            incarnation=str(uuid.uuid4()),
            engine_run_id="bench",
        )

    async def _report(self, offset_s: float) -> None:
        loop = asyncio.get_running_loop()
        begin_s = loop.time() + offset_s
        for number in itertools.count(1):
            await asyncio.sleep(max(0.0, begin_s + number * self._load.interval_s - loop.time()))
            self._sent_s[number] = loop.time()
            report = pb.LoadReport(
                sequence=number,
                first_step=number,
                steps_per_sample=1,
                kind=pb.LOAD_KIND_LOGICAL,
                scope=pb.LOAD_SCOPE_PARTICIPANT,
                counts=self._counts,
            )
            self._say(pb.ConnectRequest(load_report=report))

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(5.0)
            heartbeat = pb.ParticipantHeartbeat(applied=self._applied)
            self._say(pb.ConnectRequest(heartbeat=heartbeat))

    async def _read(self, call: Any) -> None:
        loop = asyncio.get_running_loop()
        async for response in call:
            now_s = loop.time()
            match response.WhichOneof("message"):
                case "report_ack":
                    sent_s = self._sent_s.pop(response.report_ack.sequence)
                    if self._record.is_on:
                        self._record.acked_s.append(now_s - sent_s)
                case "refused":
                    self._record.num_refused += 1
                case "stage":
                    metadata = response.stage.plan.metadata
                    self._ack(response, metadata, pb.ACK_PHASE_STAGED)
                case "commit":
                    commit = response.commit
                    self._record.arrived_s[self._name, commit.version].append(now_s)
                    self._applied = pb.PlanRef(version=commit.version, digest=commit.digest)
                    self._ack(response, commit, pb.ACK_PHASE_APPLIED)

    def _ack(self, response: Any, plan: Any, phase: Any) -> None:
        ack = pb.Ack(nonce=response.nonce, version=plan.version, phase=phase, digest=plan.digest)
        self._say(pb.ConnectRequest(ack=ack))


async def _publish(load: Load, record: Record, client: Client) -> list[float]:
    """Publishes placements by hand; returns how long each took to reach its last participant."""
    loop, rng = asyncio.get_running_loop(), np.random.default_rng(0)
    num_slots = load.num_participants * load.slots_per_rank
    reached_s = []
    for number in range(load.num_publications):
        name = _name(number % load.num_deployments)
        phy2log = initial_phy2log(load.num_layers, load.num_experts, num_slots)
        phy2log = rng.permuted(phy2log, axis=1)
        asked_s = loop.time()
        try:
            plan = await client.publish_plan(name, phy2log)
        except (FailedPreconditionError, AbortedError):
            await asyncio.sleep(0.5)  # a plan of the planner's own is on its way
            continue
        arrivals = record.arrived_s[name, plan.version]
        async with asyncio.timeout(60.0):
            # A list has no event for its length.
            while len(arrivals) < load.num_participants:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        reached_s.append(max(arrivals) - asked_s)
        await asyncio.sleep(1.0)
    return reached_s


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _name(index: int) -> str:
    return f"bench/d{index}"


async def run(load: Load) -> dict[str, Any]:
    """Runs the participants and returns what was seen."""
    record, rng = Record(), random.Random(0)
    tasks = []
    for index in range(load.num_deployments):
        for rank in range(load.num_participants):
            sidecar = Sidecar(load, _name(index), rank, record)
            tasks.append(asyncio.create_task(sidecar.run(rng.uniform(0.0, load.interval_s))))
        # As a fleet comes up: not all in the same instant.
        await asyncio.sleep(2.0 / load.num_deployments)
    await asyncio.sleep(load.settle_s)
    _tell("measuring")
    record.is_on = True
    await asyncio.sleep(load.measured_s)
    record.is_on = False
    _tell("publishing")
    async with Client(load.address) as client:
        reached_s = await _publish(load, record, client)
    failed = [task for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {
        "acked_s": record.acked_s,
        "reached_s": reached_s,
        "num_refused": record.num_refused,
        "num_lost": len(failed),
    }


if __name__ == "__main__":
    _tell(json.dumps(asyncio.run(run(Load(**json.loads(sys.argv[1]))))))
