"""Where the solver process begins.

Apart from the worker itself, so that the service can name it without importing torch.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


_NICENESS = 10


def main(connection: Connection, device: str, insists: bool) -> None:
    """Leaves one core to the event loop and hands over to the worker."""
    # Both may reach the whole process group, from a terminal or a service manager; the parent
    # decides when this process ends, after a drain that needs it. Said before torch is imported,
    # which takes seconds.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Where cores are short, participants are answered first: a plan is for minutes, and may wait.
    os.nice(_NICENESS)
    from expertplane_server.runtime import solver_worker

    num_threads = max(1, available_cores() - 1)
    solver_worker.main(connection, device, num_threads, insists=insists)


def available_cores() -> int:
    """Returns the cores that this process may use: affinity and the container's quota counted."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, _quota_cores()))


def _quota_cores() -> int:
    """Returns the quota of the control group in cores, rounded down; a large number without."""
    try:
        quota, period = _CPU_MAX.read_text().split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):  # not Linux, no quota ("max"), or an older hierarchy
        return 2**16
