"""The way to an engine over a Unix socket: a line of JSON a message, one engine at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
import stat
from typing import TYPE_CHECKING, Any

from expertplane_client.errors import InputError

from .dialogue import EngineHello, Load, parse_line, plan_document, to_line


if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from .desk import Order
    from .reception import Reception


logger = logging.getLogger(__name__)

MAX_PATH_BYTES = 103
"""What the address of a Unix socket holds on every system that we run on."""

_CHUNK_BYTES = 256 * 1024
_MAX_UNREAD_BYTES = 256 * 1024 * 1024
_MAX_CONNECTIONS = 16
_HELLO_TIMEOUT_S = 10.0


class SocketPort:
    """Listens for engines; the one that said hello last is the engine.

    Args:
        path: The socket's file; one that nobody listens on is replaced.
        max_line_bytes: The longest line that an engine may send.
        reception: Takes what the engine says.
    """

    def __init__(self, path: Path, max_line_bytes: int, reception: Reception) -> None:
        self._path = path
        self._max_line_bytes = max_line_bytes
        self._reception = reception
        self._current: _Connection | None = None
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listens.

        Raises:
            InputError: the path is too long, taken, or no place for a socket.
        """
        listener = _bind(self._path)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener)

    async def run(self) -> None:
        """Serves until it is cancelled."""
        assert self._server is not None
        await asyncio.Event().wait()

    def close(self) -> None:
        """Ends every connection and leaves no file behind."""
        if self._server is None:
            return
        self._server.close()
        for connection in tuple(self._connections):
            connection.close()
        with contextlib.suppress(OSError):
            self._path.unlink()

    def offer(self, order: Order) -> None:
        """Tells the engine an order."""
        document = {"type": order.kind, "order": order.number, **plan_document(order.plan)}
        if order.due_s is not None:
            left_s = order.due_s - asyncio.get_running_loop().time()
            document["deadline_s"] = round(max(0.0, left_s), 3)
        self._tell(document)

    def withdraw(self, version: int) -> None:
        """Tells the engine to drop a version."""
        self._tell({"type": "abort", "version": version})

    def say_no_plan(self) -> None:
        """Tells the engine to serve with its start placement."""
        self._tell({"type": "no_plan"})

    def _tell(self, document: dict[str, Any]) -> None:
        if self._current is not None:
            self._current.send(document)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(writer)
        if len(self._connections) >= _MAX_CONNECTIONS:
            connection.refuse(f"Expected at most {_MAX_CONNECTIONS} connections, got another.")
            connection.close()
            return
        self._connections.add(connection)
        try:
            async with asyncio.timeout(_HELLO_TIMEOUT_S) as limit:
                async for line in _lines(reader, self._max_line_bytes):
                    await self._take(connection, line)
                    if connection is self._current:
                        limit.reschedule(None)
        except TimeoutError:
            connection.refuse(f"Expected a hello within {_HELLO_TIMEOUT_S:.0f} s, got none.")
        except OSError as error:
            logger.info("the connection to an engine broke: %s", error)
        finally:
            self._connections.discard(connection)
            connection.close()
            if connection is self._current:
                self._current = None
                self._reception.go()

    async def _take(self, connection: _Connection, line: bytes | None) -> None:
        try:
            if line is None:
                raise InputError(
                    f"Expected lines of at most {self._max_line_bytes} bytes, got a longer one."
                )
            message = parse_line(line)
            if isinstance(message, EngineHello):
                self._welcome(connection, message)
            elif connection is not self._current:
                raise InputError("Expected a hello first, got another message.")
            elif isinstance(message, Load):
                self._reception.report(message)
            elif not self._reception.answer(message):
                raise InputError(
                    "Expected an answer to an order, got one about version "
                    f"{message.version}, which was not asked for."
                )
            else:
                # Whoever waits for the answer goes first: load that follows is load under it.
                await asyncio.sleep(0)
        except InputError as error:
            self._reception.complain(str(error))
            connection.refuse(str(error))

    def _welcome(self, connection: _Connection, hello: EngineHello) -> None:
        former, self._current = self._current, connection
        try:
            self._reception.come(hello)
        except InputError:
            self._current = former
            raise
        if former is not None and former is not connection:
            former.refuse("Expected to be the only engine, got another one.")
            former.close()


class _Connection:
    """One engine's connection."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    @property
    def num_unread_bytes(self) -> int:
        """What the engine has not taken yet, in bytes."""
        return self._writer.transport.get_write_buffer_size()

    def send(self, document: dict[str, Any]) -> None:
        """Writes a line; an engine that does not read is let go."""
        transport = self._writer.transport
        if transport.is_closing():
            return
        if self.num_unread_bytes > _MAX_UNREAD_BYTES:
            logger.warning("the engine does not read; its connection is closed")
            transport.abort()
            return
        self._writer.write(to_line(document))

    def refuse(self, message: str) -> None:
        """Tells what is wrong."""
        self.send({"type": "error", "message": message})

    def close(self) -> None:
        """Closes the connection; what an engine that does not read has left unread is dropped."""
        if self.num_unread_bytes:
            self._writer.transport.abort()
        else:
            self._writer.close()


async def _lines(reader: asyncio.StreamReader, max_bytes: int) -> AsyncIterator[bytes | None]:
    # None stands for a line that is too long: told at once, and nothing of it is kept.
    buffered = bytearray()
    is_skipping = False
    while chunk := await reader.read(_CHUNK_BYTES):
        for piece in re.findall(rb"[^\n]*\n|[^\n]+", chunk):
            if not is_skipping:
                buffered += piece
            if len(buffered) > max_bytes:
                is_skipping = True
                buffered.clear()
                yield None
            if piece.endswith(b"\n"):
                line = bytes(buffered)
                buffered.clear()
                if line.strip():
                    yield line
                is_skipping = False


def _bind(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise InputError(
            f"Expected handoff.path of at most {MAX_PATH_BYTES} bytes, "
            f"got {len(os.fsencode(path))}: {path}."
        )
    listener = socket.socket(socket.AF_UNIX)
    try:
        _remove_stale(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # From its first moment on for nobody else: whoever writes here moves experts.
        mask = os.umask(0o177)
        try:
            listener.bind(os.fspath(path))
        finally:
            os.umask(mask)
    except OSError as error:
        listener.close()
        raise InputError(
            f"Expected a place for a socket at {path}, got: {error.strerror or error}."
        ) from error
    except InputError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise InputError(f"Expected a socket or nothing at {path}, got another file.")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
    raise InputError(f"Expected nobody to listen at {path}, got another sidecar.")
