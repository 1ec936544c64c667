"""What a replay found, as numbers to store and show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from expertplane_planner.model.mode import Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRow:
    """How the plans of one policy fared in windows that they were not made for."""

    name: str
    """The policy's, or `static`, or `oracle`."""

    balancedness: float
    """Mean over all scored steps; of a step, the sum over layers of mean rank load over the sum of
    maxima."""

    per_window: tuple[float, ...]
    """The same, of the steps of each scored window."""

    per_layer: tuple[float, ...]
    """Mean over all scored steps of each layer's own balancedness."""

    per_layer_minimum: tuple[float, ...]
    """The worst scored window of each layer, mean over its steps."""

    mean: float
    """Mean of `per_layer`."""

    minimum: float
    """Smallest of `per_layer`: the worst layer."""

    num_plans: int
    """Plans that were made; the first has nothing to move from."""

    moved_by_layer: tuple[float, ...]
    """Slots of each layer that a re-plan moves, mean over all re-plans; 0 if there was none."""

    moved_slots_per_layer: float
    """Mean of `moved_by_layer`."""

    seconds_median: float
    """Time of a solve, in seconds; without forecast, relabelling and scores."""

    gap_closed: float | None
    """(this - balanced) / (oracle - balanced); None where `balanced` did not take part, or is not
    below the oracle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """A replay of one trace."""

    num_windows: int
    """Windows of the trace."""

    warmup_windows: int
    """Windows before the first that was scored."""

    num_samples: int
    """Samples, or steps, of a window."""

    every: int
    """Steps from one re-plan to the next; as many as a window has unless asked for otherwise."""

    move_budget: int | None
    """Slots of each layer that a re-plan of a policy that can go on may move; None for any."""

    mode: Mode
    """The mode that was solved in."""

    rows: tuple[ReplayRow, ...]
    """`static`, the policies in the order in which they were named, `oracle`."""

    def row(self, name: str) -> ReplayRow:
        """Return the row of a policy.

        Raises:
            KeyError: It did not take part.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)
