"""Where the solver process begins.

Apart from the worker itself, so that the service can name it without importing torch.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from multiprocessing.connection import Connection


def main(connection: Connection, device: str) -> None:
    """Leaves one core to the event loop and hands over to the worker."""
    from expertplane_server.runtime import solver_worker

    num_threads = max(1, (os.cpu_count() or 2) - 1)
    solver_worker.main(connection, device, num_threads)
