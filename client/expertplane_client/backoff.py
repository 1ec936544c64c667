"""How long to wait before the next try."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import InputError


if TYPE_CHECKING:
    import random


_MAX_EXPONENT = 64  # keeps the power finite however long an outage lasts


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential back-off with jitter, so that clients of a restarted planner come back spread.

    Raises:
        InputError: `0 < initial_s <= max_s`, `factor >= 1` or `0 <= jitter <= 1` does not hold.
    """

    initial_s: float = 0.2
    """Longest wait before the first retry, in seconds."""

    max_s: float = 10.0
    """Longest wait ever, in seconds."""

    factor: float = 2.0
    """How much longer each wait is than the one before."""

    jitter: float = 0.5
    """Share of each wait that is drawn at random."""

    def __post_init__(self) -> None:
        if not 0 < self.initial_s <= self.max_s < float("inf"):
            raise InputError(
                f"Expected 0 < initial_s <= max_s, got {self.initial_s} and {self.max_s}."
            )
        if not 1 <= self.factor < float("inf"):
            raise InputError(f"Expected factor to be at least 1, got {self.factor}.")
        if not 0 <= self.jitter <= 1:
            raise InputError(f"Expected jitter in [0, 1], got {self.jitter}.")

    def delay_s(self, attempt: int, rng: random.Random) -> float:
        """Returns the wait before a retry, in seconds.

        Args:
            attempt: Failed tries in a row before this one, from 0 on.
            rng: Where the jitter comes from.
        """
        longest = min(self.max_s, self.initial_s * self.factor ** min(attempt, _MAX_EXPONENT))
        return longest * (1 - self.jitter * rng.random())
