"""What a participant has to say, and when. Pure: the time comes with every question."""

from __future__ import annotations

import collections
import math
from typing import TYPE_CHECKING

from . import messages


if TYPE_CHECKING:
    from collections.abc import Callable

    from expertplane.v1 import placement_service_pb2 as placement_pb2


_MAX_ANSWERS = 1024
"""Answers that wait for the stream; a planner that asks faster than it reads loses the oldest."""


class Outbox:
    """Messages on their way to the planner: answers first, then reports at the planner's pace.

    Reports stay until they are answered, over as many streams as it takes. When there are too
    many, the oldest makes room: newer load says more about the load to come.

    Args:
        capacity: The most unanswered reports to keep.
        heartbeat: Makes the sign of life.
    """

    def __init__(self, capacity: int, heartbeat: Callable[[], messages.Request]) -> None:
        self._capacity = capacity
        self._heartbeat = heartbeat
        self._reports: dict[int, placement_pb2.LoadReport] = {}
        self._answers: collections.deque[messages.Request] = collections.deque(maxlen=_MAX_ANSWERS)
        self._last_sequence = 0
        self._last_sent_sequence = 0
        self._batch_end = 0
        self._can_report = False
        self._is_closing = False
        self._heartbeat_interval_s = math.inf
        self._report_interval_s = 0.0
        self._next_heartbeat_s = math.inf
        self._last_report_s = -math.inf
        self._num_dropped = 0
        self._num_sent = 0

    @property
    def num_sent(self) -> int:
        """Reports handed to a stream; one that goes out again counts again."""
        return self._num_sent

    @property
    def num_dropped(self) -> int:
        """Reports that made room for newer ones."""
        return self._num_dropped

    @property
    def num_reports(self) -> int:
        """Reports that the planner has not answered."""
        return len(self._reports)

    @property
    def is_finished(self) -> bool:
        """Whether the last word is said."""
        return self._is_closing and not self._answers

    def add_report(self, report: placement_pb2.LoadReport) -> None:
        """Takes a report and numbers it; drops the oldest when there are too many."""
        self._last_sequence += 1
        report.sequence = self._last_sequence
        if len(self._reports) >= self._capacity:
            del self._reports[next(iter(self._reports))]
            self._num_dropped += 1
        self._reports[report.sequence] = report

    def settle_report(self, sequence: int) -> bool:
        """Forgets an answered report; False when it is none of ours, or was dropped meanwhile."""
        return self._reports.pop(sequence, None) is not None

    def open(self, hello: messages.Request) -> None:
        """Starts a stream: its first message is `hello`, and every report goes out again."""
        self._answers.clear()
        self._answers.append(hello)
        self._last_sent_sequence = 0
        self._batch_end = 0
        self._can_report = False
        self._next_heartbeat_s = math.inf

    def welcome(
        self,
        now_s: float,
        *,
        can_report: bool,
        heartbeat_interval_s: float,
        report_interval_s: float,
    ) -> None:
        """Takes the planner's cadence, in seconds; reports may flow from now on."""
        self._can_report = can_report
        self._heartbeat_interval_s = heartbeat_interval_s
        self._next_heartbeat_s = now_s + heartbeat_interval_s
        self.set_report_interval(report_interval_s)

    def set_report_interval(self, interval_s: float) -> None:
        """Takes a new pace, in seconds between batches of reports, from the last batch on."""
        self._report_interval_s = interval_s

    def say(self, request: messages.Request) -> None:
        """Puts an answer ahead of all reports."""
        self._answers.append(request)

    def close(self, goodbye: messages.Request) -> None:
        """Puts the last word after the answers; reports stay unsaid."""
        self._answers.append(goodbye)
        self._is_closing = True

    def pop(self, now_s: float) -> messages.Request | None:
        """Returns the next message to write, None when nothing is due."""
        if self._answers:
            return self._answers.popleft()
        if self._is_closing:
            return None
        if now_s >= self._next_heartbeat_s:
            self._next_heartbeat_s = now_s + self._heartbeat_interval_s
            return self._heartbeat()
        report = self._next_report()
        if report is None:
            return None
        if report.sequence > self._batch_end:
            if now_s < self._last_report_s + self._report_interval_s:
                return None
            # The pace is that of batches: whatever waits goes now, or a backlog would never end.
            self._batch_end = self._last_sequence
            self._last_report_s = now_s
        self._last_sent_sequence = report.sequence
        self._num_sent += 1
        return messages.Request(load_report=report)

    def due_s(self) -> float | None:
        """Returns when something is due that waits for nothing but time; None for never."""
        due_s = self._next_heartbeat_s
        report = self._next_report()
        if report is not None and report.sequence <= self._batch_end:
            return 0.0
        if report is not None:
            # Never sent before means due at once, whatever the clock shows.
            due_s = min(due_s, max(0.0, self._last_report_s + self._report_interval_s))
        return due_s if math.isfinite(due_s) else None

    def _next_report(self) -> placement_pb2.LoadReport | None:
        if not self._can_report:
            return None
        unsent = (n for n in self._reports if n > self._last_sent_sequence)
        return self._reports.get(next(unsent, 0))
