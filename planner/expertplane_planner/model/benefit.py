"""What a plan gains over the placement in force, what getting there costs, and in which units."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field

from expertplane_planner.errors import InvalidInputError

from .transfers import LinkSpeed


class Basis(enum.StrEnum):
    """Which load a benefit was measured on."""

    HELD_OUT = "held_out"
    """Samples of the window that the solve did not see. They share its traffic mix with those
    that it saw, so that even this is optimistic."""

    PREDICTED = "predicted"
    """The prediction that the plan was made for, because there were too few samples."""


class Necessity(enum.StrEnum):
    """Why a placement in force cannot stay, whatever another gains."""

    LOST_EXPERTS = "lost_experts"
    """A rank was lost, and with it the only replicas of some experts."""

    ENGINE_RULES = "engine_rules"
    """The engine does not accept it."""

    MODE = "mode"
    """It is not hierarchical as asked for, or spills more than allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenefitTerms:
    """What time is worth and what moving costs.

    Raises:
        InvalidInputError: A term leaves its range; the field is `terms.<name>`.
    """

    horizon_s: float = 300.0
    """Seconds that a plan is expected to serve: a few windows, then traffic has moved on."""

    moe_time_fraction: float = 0.5
    """Share of a step that waits for the most loaded rank, in [0, 1]. About half of the time of a
    large expert-parallel decode step goes to experts and their exchange."""

    stall_fraction: float = 0.1
    """Share of the migration that serving stands still, in [0, 1]: 0.1 for engines that copy
    weights while they serve, 1 for those that stop."""

    safety: float = 2.0
    """How many times its cost a plan must gain: the gain is a forecast, the cost is certain."""

    min_gain: float = 0.01
    """Least relative gain, in [0, 1): below 1 % no move pays for the unrest it brings."""

    bytes_per_expert: int = 44_000_000
    """Size of one expert's weights in one layer; that of DeepSeek-V3 in fp8. 0 is not known: moves
    cost nothing then, save that of two candidates the one that moves less is preferred as if
    experts were of this size."""

    link_speed: LinkSpeed = field(default_factory=LinkSpeed)
    """What ranks send and receive per second."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("horizon_s", 0.0, math.inf),
            ("moe_time_fraction", 0.0, 1.0),
            ("stall_fraction", 0.0, 1.0),
            ("safety", 0.0, math.inf),
            ("min_gain", 0.0, 1.0),
            ("bytes_per_expert", 0, math.inf),
        ):
            value = getattr(self, name)
            kinds = (int,) if isinstance(low, int) else (int, float)
            is_number = isinstance(value, kinds) and not isinstance(value, bool)
            if not (is_number and math.isfinite(value) and low <= value <= high):
                kind = "a whole number" if isinstance(low, int) else "a number"
                bounds = f"of at least {low:g}" if high == math.inf else f"in [{low:g}, {high:g}]"
                raise InvalidInputError(
                    f"terms.{name}", f"Expected {name} to be {kind} {bounds}, got {value!r}."
                )
        if self.min_gain == 1.0:  # all load, and so more than a plan can gain
            raise InvalidInputError("terms.min_gain", "Expected min_gain below 1, got 1.0.")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetBenefit:
    """Gain and cost of a plan against the placement in force, with every term."""

    maximum_before: float
    """Sum over layers of the maximum rank load under the placement in force, tokens of a step; if
    that has lost experts, under the repaired one."""

    maximum_after: float
    """The same under the plan."""

    moved_slots: int
    """Slots whose rank must fetch an expert, over all layers."""

    migration_s: float
    """Estimated time of the migration, see `TransferSchedule.estimated_s`."""

    basis: Basis
    """What the maxima were measured on."""

    terms: BenefitTerms
    """What time is worth and what moving costs."""

    necessity: Necessity | None = None
    """Why the placement in force cannot stay; None if it can."""

    @property
    def gain(self) -> float:
        """Relative reduction of the summed maximum rank load, 0 without load."""
        if self.maximum_before <= 0:
            return 0.0
        return 1.0 - self.maximum_after / self.maximum_before

    @property
    def gain_s(self) -> float:
        """Seconds of serving that the plan saves over its horizon."""
        return self.terms.horizon_s * self.terms.moe_time_fraction * self.gain

    @property
    def moved_bytes(self) -> int:
        """Weights that ranks must fetch."""
        return self.moved_slots * self.terms.bytes_per_expert

    @property
    def cost_s(self) -> float:
        """Seconds of serving that the migration takes away."""
        return self.terms.stall_fraction * self.migration_s

    @property
    def net_s(self) -> float:
        """Seconds gained, less the cost times the safety factor."""
        return self.gain_s - self.terms.safety * self.cost_s

    @property
    def is_worthwhile(self) -> bool:
        """Whether the plan is needed, or gains enough to be put in force."""
        return self.necessity is not None or (self.net_s > 0 and self.gain > self.terms.min_gain)
