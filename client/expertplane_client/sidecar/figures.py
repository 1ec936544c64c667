"""What there is to tell about a sidecar."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from expertplane_client.statistics import Statistics


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A sidecar at one moment; counts since it was started, over all engines."""

    is_connected: bool = False
    is_engine_attached: bool = False
    is_ready: bool = False
    applied_version: int = 0
    staged_version: int = 0
    plan_age_s: float = math.nan
    planner_silence_s: float = math.nan
    num_connects: int = 0
    num_plans: int = 0
    num_engines: int = 0
    num_sent: int = 0
    num_acked: int = 0
    num_refused: int = 0
    num_dropped: int = 0
    num_ignored: int = 0
    num_complaints: int = 0


def add_counts(counts: dict[str, int], statistics: Statistics) -> dict[str, int]:
    """Returns counts with those of one more participant."""
    more: dict[str, int] = dataclasses.asdict(statistics)
    return {name: counts.get(name, 0) + value for name, value in more.items()}
