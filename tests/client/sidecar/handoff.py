"""A sidecar in this process, and engines on the other side of its hand-off."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from typing import TYPE_CHECKING, Any

import grpc.aio
import numpy as np
from grpc_health.v1 import health_pb2

from expertplane_client.sidecar.app import SidecarApp
from expertplane_client.sidecar.config import HandoffConfig, SidecarConfig

from .. import builders
from ..engine import QUICK
from ..scripted_planner import PATIENCE_S


if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from numpy.typing import NDArray


def config(address: str, folder: Path, *, kind: str = "socket", **changes: Any) -> SidecarConfig:
    """Returns a configuration whose files lie in a folder."""
    settings: dict[str, Any] = {
        "planner": address,
        "deployment": builders.DEPLOYMENT,
        "participant_id": "node-0",
        "ranks": (0, 1),
        "cache": folder / "cache",
        "metrics": "",
        "health": "127.0.0.1:0",
        "handoff": HandoffConfig(
            kind=kind,
            path=folder / ("engine.sock" if kind == "socket" else "handoff"),
            poll_interval_s=0.01,
            max_message_bytes=4096,
        ),
    }
    return SidecarConfig(**settings | changes)


class Bench(SidecarApp):
    """A sidecar, and the engines that a test connects to it."""

    def __init__(self, settings: SidecarConfig) -> None:
        super().__init__(settings, QUICK)
        self._path = settings.handoff.path
        self._engines: list[SocketEngine] = []

    async def stranger(self) -> SocketEngine:
        """Returns an engine that has said nothing yet."""
        reader, writer = await asyncio.open_unix_connection(self._path, limit=2**20)
        self._engines.append(SocketEngine(reader, writer))
        return self._engines[-1]

    async def engine(self, **hello: Any) -> SocketEngine:
        """Returns an engine that has said hello."""
        engine = await self.stranger()
        engine.say("hello", **{"engine_run_id": "run-1"} | hello)
        return engine

    async def leave(self) -> None:
        """Ends every engine's connection."""
        for engine in self._engines:
            await engine.close()


@contextlib.asynccontextmanager
async def running(settings: SidecarConfig) -> AsyncIterator[Bench]:
    """Runs a sidecar for the time of the block."""
    app = Bench(settings)
    stopping = asyncio.Event()
    try:
        await app.start()
        serving = asyncio.create_task(app.run(stopping, asyncio.Event()))
        yield app
        stopping.set()
        async with asyncio.timeout(PATIENCE_S):
            await serving
    finally:
        await app.leave()
        await app.close()


async def health(app: SidecarApp, service: str) -> str:
    """Returns what a probe is told."""
    async with grpc.aio.insecure_channel(app.health_address) as channel:
        answer = await channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE_S)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


async def until(holds: Any) -> None:
    """Waits for what has no event to wait for, such as a file."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - a file sets no event
            await asyncio.sleep(0.005)


def phy2log(document: dict[str, Any]) -> NDArray[np.int32]:
    """Returns the map in a message, decoded as docs/sidecar.md says."""
    tensor = document["phy2log"]
    content = base64.b64decode(tensor["data"])
    return np.frombuffer(content, dtype="<i4").reshape(tensor["shape"])


def counts_document(counts: NDArray[Any]) -> dict[str, Any]:
    """Returns counts as docs/sidecar.md says."""
    narrow = counts.astype("<i4")
    data = base64.b64encode(narrow.tobytes()).decode()
    return {"dtype": "int32", "shape": list(counts.shape), "data": data}


class SocketEngine:
    """An engine that speaks the protocol by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def say(self, kind: str, **fields: Any) -> None:
        """Sends a message."""
        self.say_raw(json.dumps({"type": kind, **fields}).encode() + b"\n")

    def say_raw(self, content: bytes) -> None:
        """Sends bytes as they are."""
        self._writer.write(content)

    async def hear(self, kind: str) -> dict[str, Any]:
        """Returns the next message, which must be of a kind."""
        async with asyncio.timeout(PATIENCE_S):
            line = await self._reader.readline()
        message: dict[str, Any] = json.loads(line)
        assert message["type"] == kind, message
        return message

    async def has_ended(self) -> bool:
        """Returns whether the sidecar has ended the connection."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._reader.readline() == b""

    async def close(self) -> None:
        """Ends the connection, as a crash of the engine would."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class DirectoryEngine:
    """An engine that reads and writes files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.state: dict[str, Any] = {"engine_run_id": "run-1"}

    def write(self, **changes: Any) -> None:
        """Says all that it has to say, changes included."""
        self.state |= changes
        self.put("engine.json", json.dumps(self.state).encode())

    def put(self, name: str, content: bytes) -> None:
        """Renames a file into place."""
        path = self._folder / name
        aside = path.with_name(f"{path.name}.new")
        aside.write_bytes(content)
        aside.replace(path)

    def orders(self) -> dict[str, Any]:
        """Returns what the sidecar wants."""
        document: dict[str, Any] = json.loads((self._folder / "orders.json").read_bytes())
        return document

    async def told(self, what: str, version: int) -> dict[str, Any]:
        """Waits until a version is ordered, and returns the order."""

        def is_told() -> bool:
            order = self.orders()[what]
            return order is not None and order["version"] == version

        await until(is_told)
        order: dict[str, Any] = self.orders()[what]
        return order

    def map(self, order: dict[str, Any]) -> NDArray[np.int32]:
        """Returns the map of an order."""
        array: NDArray[np.int32] = np.load(self._folder / order["map"], allow_pickle=False)
        return array
