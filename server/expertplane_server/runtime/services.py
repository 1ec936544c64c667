"""What the drivers of all deployments share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from expertplane_server.runtime.crash_points import CrashPoints


if TYPE_CHECKING:
    from expertplane_server.runtime.clock import Clock
    from expertplane_server.runtime.solver import SolverProcess
    from expertplane_server.runtime.store_thread import StoreThread
    from expertplane_server.runtime.watch_hub import WatchHub
    from expertplane_server.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What every driver shares."""

    store: StoreThread
    solver: SolverProcess
    hub: WatchHub
    metrics: Metrics
    clock: Clock
    crash_points: CrashPoints = field(default_factory=CrashPoints)
