"""The numbers of a deployment's spec that have defaults: validated at birth, units in the names.

Where a number goes to the planning library, the default is the library's, but for
`bytes_per_expert`: what the library takes for typical is for the operator to say here.
"""

from __future__ import annotations

from dataclasses import dataclass

from expertplane_server.core import limits
from expertplane_server.core.errors import InvalidArgumentError


def check(holds: bool, at: str, expectation: str, got: object) -> None:
    """Raises InvalidArgumentError naming the field `at` unless `holds`."""
    if not holds:
        raise InvalidArgumentError(f"Expected {expectation}, got {got}.", field=at)


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerParameters:
    """When a window closes, and what a plan must promise to be published."""

    window_samples: int = 16
    """Closes a window; 16 steps are enough for the mean and quick to gather."""
    max_window_s: float = 600.0
    """Closes a window that gets no samples any more."""
    min_samples: int = 1
    cooldown_s: float = 0.0
    """Least time between two published plans; 0 because `min_gain` already holds back."""
    min_gain: float = 0.01
    """Relative reduction of the summed maximum rank load that a plan must exceed; below 1 % no
    move pays."""
    horizon_s: float = 300.0
    """How long a plan is expected to serve: a few windows, then traffic has moved on."""
    moe_time_fraction: float = 0.5
    """Share of a step that waits for the most loaded rank."""
    stall_fraction: float = 0.1
    """Share of the migration that serving loses: 0.1 where engines copy weights while they serve,
    1 where they stop."""
    safety: float = 2.0
    """How many times its cost a plan must gain: the gain is a forecast, the cost is certain."""

    def __post_init__(self) -> None:
        most = limits.MAX_SAMPLES_PER_SOLVE
        at = "trigger."
        samples = self.window_samples
        check(1 <= samples <= most, at + "window_samples", f"1 to {most}", samples)
        check(
            1 <= self.min_samples <= samples,
            at + "min_samples",
            f"1 to window_samples ({samples})",
            self.min_samples,
        )
        check(0 <= self.min_gain < 1, at + "min_gain", "at least 0 and below 1", self.min_gain)
        for name, low, high in (
            ("max_window_s", 1, 86400),
            ("cooldown_s", 0, 86400),
            ("stall_fraction", 0, 1),
            ("safety", 0, 10**9),
        ):
            value = getattr(self, name)
            check(low <= value <= high, at + name, f"{low} to {high}", value)
        # With either of them 0 no plan would gain any time, and none would be published.
        for name, high in (("horizon_s", 10**9), ("moe_time_fraction", 1)):
            value = getattr(self, name)
            check(0 < value <= high, at + name, f"above 0 and at most {high}", value)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleParameters:
    """How reports of several participants become one sample."""

    deadline_s: float = 10.0
    """Closes an incomplete sample: a few report intervals, so a slow sidecar costs little."""
    min_coverage: float = 0.75
    """Share of the ranks below which an incomplete sample is no longer representative."""

    def __post_init__(self) -> None:
        at = "samples."
        check(0.1 <= self.deadline_s <= 3600, at + "deadline_s", "0.1 to 3600", self.deadline_s)
        coverage = self.min_coverage
        check(0 < coverage <= 1, at + "min_coverage", "above 0 and at most 1", coverage)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastParameters:
    """What the planner believes about the coming load."""

    recent_windows: int = 1
    """Windows that the predictive mean is taken from."""
    half_life_windows: float = 100.0
    """Age, in windows, at which a forecast error counts half."""

    def __post_init__(self) -> None:
        for name, high in (("recent_windows", 16), ("half_life_windows", 10**6)):
            value = getattr(self, name)
            check(1 <= value <= high, f"forecast.{name}", f"1 to {high}", value)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutParameters:
    """How a published plan reaches the ranks, and when it is taken back."""

    stage_deadline_s: float = 600.0
    """Aborts a coordinated roll-out that not all members have staged in time; fetching the weights
    of a whole plan takes minutes at worst."""
    regression_tolerance: float = 0.02
    """Relative loss against the previous plan, measured after the switch, that takes a plan back;
    twice the gain that a plan must promise."""
    hold_down_s: float = 600.0
    """Rest of automatic publication after a roll-back or an operator's plan: as long as a window
    may last."""

    def __post_init__(self) -> None:
        at = "rollout."
        for name, low, high in (
            ("stage_deadline_s", 1, 86400),
            ("regression_tolerance", 0, 10**9),
            ("hold_down_s", 0, 10 * 86400),
        ):
            value = getattr(self, name)
            check(low <= value <= high, at + name, f"{low} to {high}", value)


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationParameters:
    """What moving weights costs."""

    bytes_per_expert: int = 0
    """Size of one expert's weights in one layer; 0 is not known, and moves go unpriced."""
    intra_node_bytes_per_s: float = 450e9
    """Between ranks of one node; NVLink 4, per direction."""
    inter_node_bytes_per_s: float = 50e9
    """Between nodes; a 400 Gbit/s adapter for every rank."""

    def __post_init__(self) -> None:
        at, most = "migration.", limits.MAX_BYTES_PER_EXPERT
        size = self.bytes_per_expert
        check(0 <= size <= most, at + "bytes_per_expert", f"0 to {most}", size)
        for name in ("intra_node_bytes_per_s", "inter_node_bytes_per_s"):
            value = getattr(self, name)
            check(1 <= value <= 1e18, at + name, "1 to 1e18", value)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementRules:
    """What the serving engine does not take, beyond what no placement may have.

    That an expert keeps its slot as long as it stays on its rank needs no rule: every plan is laid
    over the placement in force like that.
    """

    forbids_duplicates: bool = False
    """Two replicas of one expert on one rank."""
    forbids_moves_inside_rank: bool = False
    """An expert that only changes its slot inside its rank."""
    max_replicas: int = 0
    """Replicas of one expert in one layer, at most; 0 is as many as there are slots."""

    def __post_init__(self) -> None:
        most = limits.MAX_SLOTS
        at = "engine.max_replicas_per_expert"
        check(0 <= self.max_replicas <= most, at, f"0 to {most}", self.max_replicas)
