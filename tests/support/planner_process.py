"""A real planner process: `expertplane serve`, found by the line that says it is ready."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

PROGRAM = Path(sys.executable).with_name("expertplane")
START_TIMEOUT_S = 60.0
_READY = re.compile(
    r"Expertplane is ready on (?P<address>\S+?)(, metrics on (?P<metrics>http\S+))?$"
)


class PlannerProcess:
    """One run of `expertplane serve`.

    Attributes:
        address: where it listens.
        metrics_url: where it is scraped.

    Args:
        folder: where its store and its log lie.
        listen: its address.
        options: more of its options.
        environment: set for it beside what is set already.
    """

    def __init__(
        self,
        folder: Path,
        *,
        listen: str = "127.0.0.1:0",
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log = folder / "planner.log"
        self._output = self.log.open("a")
        self.process = subprocess.Popen(
            [
                PROGRAM,
                "serve",
                f"--listen={listen}",
                "--metrics=127.0.0.1:0",
                f"--store=sqlite:///{folder / 'planner.db'}",
                "--device=cpu",
                "--report-interval-s=0.02",
                *options,
            ],
            stdout=subprocess.PIPE,
            stderr=self._output,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        line = self._first_line()
        match = _READY.match(line)
        if match is None:
            self.kill()
            raise AssertionError(f"not ready: {line!r}\n{self.log.read_text()}")
        self.address = match["address"]
        self.metrics_url = match["metrics"]

    def _first_line(self) -> str:
        """Waits for the first line on stdout; a process that hangs is killed, which ends it."""
        assert self.process.stdout is not None
        guard = threading.Timer(START_TIMEOUT_S, self.process.kill)
        guard.start()
        try:
            return self.process.stdout.readline().strip()
        finally:
            guard.cancel()

    def kill(self) -> None:
        """Kills it without a word (SIGKILL)."""
        self.process.kill()
        self._reap()

    def terminate(self, timeout_s: float = 30.0) -> int:
        """Asks it to stop (SIGTERM) and returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        finally:
            self.kill()

    def wait(self, timeout_s: float = 30.0) -> int:
        """Waits for it to end by itself and returns its exit code."""
        try:
            return self.process.wait(timeout_s)
        finally:
            self.kill()

    def _reap(self) -> None:
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._output.close()


@contextlib.contextmanager
def running_planner(
    folder: Path,
    *,
    listen: str = "127.0.0.1:0",
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[PlannerProcess]:
    """Runs a planner for the time of the block; it is stopped at the end, should it still run."""
    planner = PlannerProcess(folder, listen=listen, options=options, environment=environment)
    try:
        yield planner
    finally:
        planner.process.send_signal(signal.SIGCONT)
        if planner.process.poll() is None:
            planner.terminate()


def scrape(planner: PlannerProcess) -> str:
    """Returns what Prometheus would read."""
    with urllib.request.urlopen(planner.metrics_url, timeout=10) as answer:
        return str(answer.read(), "utf-8")


def run_program(*arguments: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
    """Runs an `expertplane` command to its end."""
    return subprocess.run(
        [PROGRAM, *arguments], capture_output=True, text=True, timeout=timeout_s, check=False
    )


def wait_until(holds: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Waits for another process to bring something about; fails when it does not."""
    give_up_at_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < give_up_at_s, "waited too long"
        time.sleep(0.02)
