"""Figures about a participant."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What a participant has done since it was made."""

    num_sent: int
    """Reports handed to a stream; one that goes out again after a reconnect counts again."""

    num_acked: int
    """Reports that the planner took."""

    num_refused: int
    """Reports and other messages that the planner refused."""

    num_dropped: int
    """Reports that made room for newer ones before they were answered."""

    num_connects: int
    """Streams on which the planner said welcome."""

    num_plans: int
    """Plans that the ranks switched to, the one from the cache included."""
