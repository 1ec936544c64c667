"""Moments around a durable change at which the process ends at once, as in a power cut; for tests.

`EXPERTPLANE_CRASH_AT=after_commit` ends the process, with exit code 137 and without any cleaning
up, the first time that a commit is durable and nobody has been told; `after_commit:3` the third
time. Unset, which is what it is to be anywhere else, nothing ever ends here.

`before_publish` and `after_publish` lie around the transaction that gives a plan its version, and
likewise for every change that drivers make:

    publish            a plan gets its version, staging or committed
    commit, abort      the end of a staging
    mark_applied       every member serves with the committed plan
    record             a decision that comes with no plan goes into the journal
    raise_counters     versions and epochs jump past what a participant has seen
    park, supersede    what is remembered of participants
    set_paused         a pause, or its end
    update_deployment  a new spec
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from expertplane_server.runtime.moments import parse_moment


if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

VARIABLE = "EXPERTPLANE_CRASH_AT"
EXIT_CODE = 137
"""What a shell reports of a process that was killed with SIGKILL."""

OPERATIONS = (
    "publish",
    "commit",
    "abort",
    "mark_applied",
    "record",
    "raise_counters",
    "park",
    "supersede",
    "set_paused",
    "update_deployment",
)
NAMES = tuple(f"{when}_{what}" for what in OPERATIONS for when in ("before", "after"))


class CrashPoints:
    """Ends the process where it is told to.

    Args:
        setting: "NAME" or "NAME:N", N the times to come by, from 1 on; empty never ends anything.

    Raises:
        InvalidArgumentError: there is no such point, or N is no such number.
    """

    def __init__(self, setting: str = "") -> None:
        self._name, self._num_left = parse_moment(setting, VARIABLE, NAMES)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> CrashPoints:
        """Returns what the environment asks for, and warns of it.

        Raises:
            InvalidArgumentError: as the constructor does.
        """
        setting = environment.get(VARIABLE, "")
        points = cls(setting)
        if setting:
            logger.warning("this process will end at %s, as %s asks for", setting, VARIABLE)
        return points

    def before(self, operation: str) -> None:
        """Notes that a change is about to be asked of the store."""
        if self._name:
            self._reach(f"before_{operation}")

    def after(self, operation: str) -> None:
        """Notes that a change is durable, and that nobody has been told."""
        if self._name:
            self._reach(f"after_{operation}")

    def _reach(self, name: str) -> None:
        """Ends the process if this is the point, and the time."""
        if name != self._name:
            return
        self._num_left -= 1
        if self._num_left == 0:
            logger.critical("ended at %s, as %s asks for", name, VARIABLE)
            os._exit(EXIT_CODE)
