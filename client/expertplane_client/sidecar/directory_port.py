"""The way to an engine over a directory: each side keeps one file that says all that counts.

`orders.json` is the sidecar's: the plan to serve with and the plan to prepare, their maps beside
it in `maps/`. `engine.json` is the engine's: who it is, what it serves with, has prepared and
refuses. `load/*.json` are load samples, removed when they are taken. Every file is renamed into
place, so that a restart of either side finds what the other one meant.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import stat
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane_client.atomic import write_atomically
from expertplane_client.errors import InputError

from .dialogue import EngineState, Load, load_from, parse_state


if TYPE_CHECKING:
    from pathlib import Path

    from .desk import Order
    from .reception import Reception


logger = logging.getLogger(__name__)

FORMAT = "expertplane.handoff.v1"

_MAX_LOADS = 64
"""Load files taken at a time."""


class DirectoryPort:
    """Writes orders and looks for what the engine has written.

    Args:
        path: The directory; made when it is missing, for the own user only.
        poll_interval_s: Seconds between two looks.
        max_file_bytes: The largest file that an engine may write.
        reception: Takes what the engine says.
    """

    def __init__(
        self, path: Path, poll_interval_s: float, max_file_bytes: int, reception: Reception
    ) -> None:
        self._path = path
        self._poll_interval_s = poll_interval_s
        self._max_file_bytes = max_file_bytes
        self._reception = reception
        self._serve: dict[str, Any] | None = None
        self._stage: dict[str, Any] | None = None
        self._has_no_plan = False
        self._maps: dict[str, np.ndarray[Any, Any]] = {}
        self._is_dirty = False
        self._has_work = asyncio.Event()
        self._seen: tuple[int, int, int] | None = None
        self._state: EngineState | None = None
        self._run: tuple[str, bytes] | None = None
        self._trouble = ""

    async def start(self) -> None:
        """Makes the directory; what an earlier start has ordered stays, but for preparations.

        Raises:
            InputError: it cannot be made or written to.
        """
        try:
            self._path.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in ("maps", "load"):
                (self._path / name).mkdir(exist_ok=True, mode=0o700)
            await asyncio.to_thread(self._take_over)
        except OSError as error:
            raise InputError(
                f"Expected a directory to write to at {self._path}, "
                f"got: {error.strerror or error}."
            ) from error

    async def run(self) -> None:
        """Writes and looks until it is cancelled."""
        while True:
            self._has_work.clear()
            trouble = ""
            try:
                await self._exchange()
            except OSError as error:
                trouble = str(error)
            if trouble != self._trouble:
                logger.warning("the hand-off directory: %s", trouble or "can be used again")
            self._trouble = trouble
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_interval_s):
                    await self._has_work.wait()

    def close(self) -> None:
        """Leaves everything as it is: the next start goes on from there."""

    def offer(self, order: Order) -> None:
        """Puts an order into the file, in place of the one before."""
        plan = order.plan
        name = f"{plan.version}-{plan.digest[:16]}.npy"
        document: dict[str, Any] = {
            "order": order.number,
            "version": plan.version,
            "digest": plan.digest,
            "num_logical_experts": plan.num_logical_experts,
            "map": f"maps/{name}",
        }
        self._maps[name] = plan.phy2log
        if order.kind == "stage":
            left_s = (order.due_s or 0.0) - asyncio.get_running_loop().time()
            self._stage = document | {"deadline_unix_s": round(time.time() + left_s, 3)}
        else:
            self._serve, self._has_no_plan = document, False
            if self._stage is not None and self._stage["version"] == plan.version:
                self._stage = None
        self._touch()

    def withdraw(self, version: int) -> None:
        """Takes a preparation out of the file."""
        if self._stage is not None and self._stage["version"] == version:
            self._stage = None
            self._touch()

    def say_no_plan(self) -> None:
        """Says in the file that the start placement is to be served with."""
        self._serve, self._stage, self._has_no_plan = None, None, True
        self._touch()

    def _touch(self) -> None:
        self._is_dirty = True
        self._has_work.set()

    async def _exchange(self) -> None:
        if self._is_dirty:
            self._is_dirty = False
            document = self._document()
            try:
                await asyncio.to_thread(self._write, document, dict(self._maps))
            except OSError:
                self._is_dirty = True
                raise
            needed = _map_names(self._document())
            self._maps = {name: each for name, each in self._maps.items() if name in needed}
        content = await asyncio.to_thread(self._read_state)
        if content is not None:
            self._learn(content)
        if self._state is not None:
            self._pass_on(self._state)
        # Whoever waits for an answer goes first: load that follows is load under it.
        await asyncio.sleep(0)
        for load in await asyncio.to_thread(self._take_loads):
            self._report(load)

    def _learn(self, content: bytes) -> None:
        try:
            state = parse_state(content) if content else None
            if state is None:
                if self._state is not None:
                    self._state = self._run = None
                    self._reception.go()
                return
            start = state.hello.initial_phy2log
            run = (state.hello.engine_run_id, b"" if start is None else start.tobytes())
            # An engine that serves with no plan any more has started again, whatever its run.
            had_plan = self._state is not None and self._state.hello.applied is not None
            if run != self._run or (had_plan and state.hello.applied is None):
                self._reception.come(state.hello)
            self._state, self._run = state, run
        except InputError as error:
            self._complain(f"engine.json: {error}")

    def _pass_on(self, state: EngineState) -> None:
        for message in (state.hello.applied, state.staged, state.refused):
            if message is not None:
                self._reception.answer(message)

    def _report(self, load: Load | str) -> None:
        if isinstance(load, str):
            self._complain(load)
            return
        try:
            self._reception.report(load)
        except InputError as error:
            self._complain(f"load: {error}")

    def _complain(self, message: str) -> None:
        self._reception.complain(message)

    def _document(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "serve": self._serve,
            "stage": self._stage,
            "no_plan": self._has_no_plan,
        }

    def _write(self, document: dict[str, Any], maps: dict[str, np.ndarray[Any, Any]]) -> None:
        # The maps first and the order last: an order never names a map that is not there.
        needed = _map_names(document)
        for name in needed & maps.keys():
            path = self._path / "maps" / name
            if not path.exists():
                buffer = io.BytesIO()
                np.save(buffer, maps[name].astype("<i4"), allow_pickle=False)
                write_atomically(path, buffer.getvalue(), is_durable=True)
        content = json.dumps(document, indent=1, allow_nan=False).encode()
        write_atomically(self._path / "orders.json", content, is_durable=True)
        for path in (self._path / "maps").iterdir():
            if path.name not in needed:
                path.unlink(missing_ok=True)

    def _take_over(self) -> None:
        try:
            document = json.loads((self._path / "orders.json").read_bytes())
            serve = document["serve"]
            if serve is not None and (self._path / serve["map"]).exists():
                self._serve = serve
            self._has_no_plan = document["no_plan"] is True
        except (FileNotFoundError, ValueError, TypeError, LookupError) as error:
            logger.info("no orders of an earlier start are taken over: %r", error)
        self._write(self._document(), {})

    def _read_state(self) -> bytes | None:
        # None when nothing has changed, empty when there is no engine.
        path = self._path / "engine.json"
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # a pipe would never end
                raise OSError(f"Expected {path} to be a file, got something else.")
            mark = (status.st_ino, status.st_mtime_ns, status.st_size)
            if mark == self._seen:
                return None
            content = path.read_bytes() if status.st_size <= self._max_file_bytes else b"null"
        except FileNotFoundError:
            self._seen = None
            return b""
        self._seen = mark
        return content or b"null"

    def _take_loads(self) -> list[Load | str]:
        loads: list[Load | str] = []
        folder = self._path / "load"
        paths = (path for path in folder.iterdir() if path.suffix == ".json" and path.is_file())
        for path in sorted(paths)[:_MAX_LOADS]:
            try:
                if path.stat().st_size > self._max_file_bytes:
                    loads.append(f"load: Expected at most {self._max_file_bytes} bytes, got more.")
                else:
                    loads.append(load_from(path.read_bytes()))
            except InputError as error:
                loads.append(f"{path.name}: {error}")
            path.unlink(missing_ok=True)
        return loads


def _map_names(document: dict[str, Any]) -> set[str]:
    orders = (document["serve"], document["stage"])
    return {order["map"].rpartition("/")[2] for order in orders if order is not None}
