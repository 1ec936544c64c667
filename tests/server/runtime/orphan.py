"""A service that does nothing but own a solver: prints the worker's process id and waits."""

from __future__ import annotations

import asyncio
import sys

from expertplane_server.runtime.solver import SolverProcess
from expertplane_server.telemetry.metrics import Metrics


async def main() -> None:
    """Start the solver and wait to be killed."""
    solver = SolverProcess("cpu", solve_timeout_s=60.0, metrics=Metrics())
    await solver.start()
    sys.stdout.write(f"{solver._host.pid}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
