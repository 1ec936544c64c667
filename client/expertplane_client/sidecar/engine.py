"""For engines: the hand-off to a sidecar over its Unix socket, without threads and without errors.

Needs the base install only. An engine that is written in another language, or wants no package of
ours, speaks the protocol of docs/sidecar.md itself.
"""

from __future__ import annotations

import json
import logging
import select
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .arrays import from_document, to_document


if TYPE_CHECKING:
    import os
    from typing import Self

    from numpy.typing import NDArray


logger = logging.getLogger(__name__)

_CHUNK_BYTES = 256 * 1024
_SEND_TIMEOUT_S = 1.0
_RETRY_S = 0.5
_STUCK_RETRY_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Message:
    """What the sidecar says."""

    kind: Literal["plan", "no_plan", "stage", "commit", "abort"]
    """Serve with this plan from the start; serve with the start placement; prepare this plan;
    switch to it; drop what is prepared of it."""
    version: int = 0
    digest: str = ""
    phy2log: NDArray[np.int32] | None = None
    """[num_layers, num_slots], of plan, stage and commit."""
    deadline_s: float | None = None
    """Time left to prepare, of stage, in seconds."""


class EngineLink:
    """One engine's connection to its sidecar. Belongs to one thread; never raises into it.

        link = EngineLink("/run/expertplane/engine.sock", run_id)
        while serving:
            for message in link.receive():
                ...
                link.applied(message.version, message.digest, step)
            link.load(counts, first_step=step)

    Without a sidecar nothing is received and whatever is said is lost, but for what is applied:
    the next connection begins with that. One that hangs costs a second in ten at most.

    Args:
        path: The sidecar's socket.
        engine_run_id: Names the run of the engine.
        initial_phy2log: [num_layers, num_slots] int32, the start placement; None means that slot p
            holds expert p mod the number of logical experts.

    Raises:
        InputError: the start placement is no array of int32.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        engine_run_id: str,
        initial_phy2log: NDArray[np.int32] | None = None,
    ) -> None:
        self._path = str(path)
        self._hello: dict[str, Any] = {"type": "hello", "engine_run_id": engine_run_id}
        if initial_phy2log is not None:
            self._hello["initial_phy2log"] = to_document(initial_phy2log)
        self._socket: socket.socket | None = None
        self._received = bytearray()
        self._retry_at_s = 0.0

    @property
    def is_connected(self) -> bool:
        """Whether a sidecar is there, as far as is known."""
        return self._socket is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def receive(self, timeout_s: float = 0.0) -> list[Message]:
        """Returns what the sidecar has said, in order; connects when there is no connection.

        Args:
            timeout_s: The longest wait for the first message, in seconds.
        """
        give_up_at_s = time.monotonic() + timeout_s
        while True:
            messages = self._read(max(0.0, give_up_at_s - time.monotonic()))
            if messages or time.monotonic() >= give_up_at_s:
                return messages

    def staged(self, version: int, digest: str = "") -> None:
        """Says that the weights of a version are in spare buffers."""
        self._send({"type": "staged", "version": version, "digest": digest})

    def applied(self, version: int, digest: str, step: int) -> None:
        """Says that the ranks serve with a version, since an engine step."""
        applied = {"version": version, "digest": digest, "step": step}
        self._hello["applied"] = applied
        self._send({"type": "applied", **applied})

    def refused(self, version: int, message: str, *, is_transient: bool = True) -> None:
        """Says that a version is not prepared, or not switched to; for ever when not transient."""
        self._send(
            {"type": "refused", "version": version, "message": message, "transient": is_transient}
        )

    def load(
        self,
        counts: NDArray[Any],
        first_step: int,
        steps_per_sample: int = 1,
        kind: Literal["logical", "physical"] = "logical",
        scope: Literal["participant", "deployment"] = "participant",
    ) -> None:
        """Hands over load samples; see `expertplane_client.Participant.report`.

        They are dropped where the sidecar has not read what was said before.
        """
        if self._socket is None or not _polled(self._socket, select.POLLOUT, 0.0):
            return
        try:
            document = to_document(np.asarray(counts))
        except (ValueError, TypeError) as error:  # InputError among them
            logger.warning("the load is not handed over: %s", error)
            return
        self._send(
            {
                "type": "load",
                "first_step": first_step,
                "steps_per_sample": steps_per_sample,
                "kind": kind,
                "scope": scope,
                "counts": document,
            }
        )

    def close(self) -> None:
        """Ends the connection; the next `receive` makes another."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._received.clear()

    def _read(self, timeout_s: float) -> list[Message]:
        if self._socket is None and not self._connect(timeout_s):
            return []
        assert self._socket is not None
        try:
            if not _polled(self._socket, select.POLLIN, timeout_s):
                return []
            chunk = self._socket.recv(_CHUNK_BYTES)
        except OSError as error:
            chunk = b""
            logger.warning("the sidecar cannot be heard: %s", error)
        if not chunk:
            self.close()
            return []
        self._received += chunk
        if b"\n" not in chunk:
            return []
        *lines, rest = bytes(self._received).split(b"\n")
        self._received[:] = rest
        return [message for line in lines if (message := _message(line)) is not None]

    def _connect(self, timeout_s: float) -> bool:
        wait_s = self._retry_at_s - time.monotonic()
        if wait_s > 0:
            time.sleep(min(wait_s, timeout_s))
            if wait_s > timeout_s:
                return False
        self._retry_at_s = time.monotonic() + _RETRY_S
        link = socket.socket(socket.AF_UNIX)
        try:
            link.settimeout(_SEND_TIMEOUT_S)
            link.connect(self._path)
        except OSError as error:
            link.close()
            logger.info("there is no sidecar at %s: %s", self._path, error)
            return False
        self._socket = link
        self._send(self._hello)
        return self._socket is not None

    def _send(self, document: dict[str, Any]) -> None:
        if self._socket is None:
            return
        try:
            # Steps are numpy's integers in many an engine.
            line = json.dumps(document, default=int).encode() + b"\n"
        except (ValueError, TypeError) as error:
            logger.warning("what JSON cannot hold is not handed over: %s", error)
            return
        try:
            self._socket.sendall(line)
        except OSError as error:
            # A line may be half out: only a new connection makes sense of what follows.
            logger.warning("the sidecar does not hear: %s", error)
            self.close()
            if isinstance(error, TimeoutError):
                self._retry_at_s = time.monotonic() + _STUCK_RETRY_S


def _polled(link: socket.socket, event: int, timeout_s: float) -> bool:
    # Not select(), which fails in an engine with more than a thousand open files.
    poll = select.poll()
    poll.register(link, event)
    return bool(poll.poll(timeout_s * 1000))


def _message(line: bytes) -> Message | None:
    try:
        document = json.loads(line)
        kind = document["type"]
        if kind == "error":
            logger.warning("the sidecar objects: %s", document["message"])
            return None
        if kind not in ("plan", "no_plan", "stage", "commit", "abort"):
            return None  # of a later release
        phy2log = document.get("phy2log")
        return Message(
            kind=kind,
            version=int(document.get("version", 0)),
            digest=str(document.get("digest", "")),
            phy2log=None if phy2log is None else from_document(phy2log, "phy2log"),
            deadline_s=document.get("deadline_s"),
        )
    except (ValueError, TypeError, LookupError) as error:
        logger.warning("a message of the sidecar is not understood: %s", error)
        return None
