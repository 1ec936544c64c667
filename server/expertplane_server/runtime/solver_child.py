"""The solver process as its parent sees it: started, spoken to, ended."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import threading
from typing import TYPE_CHECKING

from expertplane_server.core.errors import UnavailableError
from expertplane_server.runtime import solver_entry
from expertplane_server.runtime.jobs import Failure, Ready, Told, Trouble


if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from expertplane_server.runtime.jobs import Job, Message


class SolverChild:
    """One solver process and the pipe to it.

    Args:
        device: "auto", "cpu" or "cuda:N".
        insists: "cuda:N" is to be had, or the process does not come up.

    Raises:
        UnavailableError: it cannot be started.
    """

    def __init__(self, device: str, *, insists: bool) -> None:
        self._device = device
        # Never fork: grpc's threads would not survive it.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=solver_entry.main, args=(theirs, device, insists), name="solver", daemon=True
        )
        try:
            process.start()
        except OSError as error:
            ours.close()
            raise self._unavailable(f"it could not be started: {error}") from error
        finally:
            theirs.close()
        self._process: SpawnProcess = process
        self._connection: Connection = ours
        # Where nobody ends it: multiprocessing's own farewell is a SIGTERM, which it ignores.
        atexit.register(self.kill)

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None
        return self._process.pid

    def wait_until_ready(self, timeout_s: float) -> Ready:
        """Returns its first word; a process that does not come up is ended.

        Raises:
            UnavailableError: it does not come up in time, or cannot use its device.
        """
        message = self._receive(timeout_s)
        if isinstance(message, Ready):
            return message
        self.end()
        raise self._unavailable(
            message.message if isinstance(message, Failure) else "it did not come up"
        )

    def ask(self, jobs: Sequence[Job], timeout_s: float) -> Iterator[Told | Trouble]:
        """Sends jobs and yields what the process says of them; ends early when it is lost.

        Args:
            jobs: to be done together.
            timeout_s: how long the process may be silent before it is taken for lost.
        """
        num_missing, is_sent = len(jobs), False
        while num_missing:
            # A process that does not read lets even the sending hang, and one that stops in the
            # middle of a message the receiving; its end lets go of both.
            watchdog = threading.Timer(timeout_s, self.kill)
            watchdog.start()
            try:
                if not is_sent:
                    self._connection.send(tuple(jobs))
                    is_sent = True
                message = self._receive(timeout_s)
            except OSError:
                return
            finally:
                watchdog.cancel()
            if not isinstance(message, Told | Trouble):
                return
            num_missing -= isinstance(message, Told)
            yield message

    def kill(self) -> None:
        """Kills it, which keeps nothing that is worth a goodbye; no-op when it is gone."""
        with contextlib.suppress(ValueError):  # closed by another thread meanwhile
            self._process.kill()

    def end(self) -> None:
        """Kills it, waits for its end and closes the pipe."""
        self._connection.close()
        self.kill()
        atexit.unregister(self.kill)
        self._process.join()
        self._process.close()

    def _receive(self, timeout_s: float) -> Message | None:
        """Returns the next message, or None when the process is dead or late."""
        try:
            if not self._connection.poll(timeout_s):
                return None
            message: Message = self._connection.recv()
        except (EOFError, OSError):
            return None
        return message

    def _unavailable(self, message: str) -> UnavailableError:
        """Returns the refusal of a service that has no solver."""
        return UnavailableError(
            f"Expected a solver process on device {self._device}, got: {message}",
            reason="SOLVER_UNAVAILABLE",
        )
