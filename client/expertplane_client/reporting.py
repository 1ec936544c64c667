"""Load on its way to the planner: what was handed over, and what became of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

from .reports import load_reports
from .session import MAX_MESSAGE_BYTES, MAX_SAMPLES_PER_REPORT


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .outbox import Outbox
    from .session import Session


class Reporting:
    """Puts load into the outbox and keeps count of the answers.

    Args:
        session: Tells which plan a step was served with.
        outbox: Where reports wait for the planner.
    """

    def __init__(self, session: Session, outbox: Outbox) -> None:
        self._session = session
        self._outbox = outbox
        self._max_samples = MAX_SAMPLES_PER_REPORT
        self._max_message_bytes = MAX_MESSAGE_BYTES
        self.all_answered = asyncio.Event()
        self.all_answered.set()
        self.num_acked = 0
        self.num_refused = 0

    def set_limits(self, max_samples: int, max_message_bytes: int) -> None:
        """Takes the planner's limits; they only lower the participant's own."""
        self._max_samples = min(max_samples, MAX_SAMPLES_PER_REPORT)
        self._max_message_bytes = min(max_message_bytes, MAX_MESSAGE_BYTES)

    def add(
        self,
        counts: NDArray[Any],
        *,
        first_step: int,
        steps_per_sample: int,
        kind: Literal["logical", "physical"],
        scope: Literal["participant", "deployment"],
    ) -> None:
        """Puts samples on their way; see `Participant.report`.

        Raises:
            InputError: wrong dimensions, dtype or steps, or a sample is too large to send.
        """
        reports = load_reports(
            counts,
            first_step=first_step,
            steps_per_sample=steps_per_sample,
            kind=kind,
            scope=scope,
            switch=self._session.switch,
            max_samples=self._max_samples,
            max_message_bytes=self._max_message_bytes,
        )
        for report in reports:
            self._outbox.add_report(report)
            self.all_answered.clear()

    def ack(self, sequence: int) -> None:
        """Notes that the planner took a report."""
        self.num_acked += self._settle(sequence)

    def refuse(self, sequence: int) -> None:
        """Notes that the planner refused a report, or another message when `sequence` is 0."""
        self._settle(sequence)
        self.num_refused += 1

    def _settle(self, sequence: int) -> bool:
        is_ours = self._outbox.settle_report(sequence)
        if not self._outbox.num_reports:
            self.all_answered.set()
        return is_ours
