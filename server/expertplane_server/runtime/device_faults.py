"""An accelerator that is not there, and fails at a named moment; for tests.

`EXPERTPLANE_DEVICE_FAULT=lost` has the solver process take the CPU for a CUDA device (torch calls
it "cpu:0"; it is planned on like any accelerator, several solves at a time) and lose it in its
first solve; `lost:3` in the third time that it plans. Unset, which is what it is to be anywhere
else, there is no such device, and none ever fails here.

    out_of_memory   it has no room for a plan
    lost            it is gone in the middle of one
    warm_up         it is gone before the first
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from expertplane_server.runtime.moments import parse_moment


if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from expertplane_planner import Plan, PlannerError, SolveTask
    from expertplane_server.runtime.planning import SolveMany

logger = logging.getLogger(__name__)

VARIABLE = "EXPERTPLANE_DEVICE_FAULT"
NAMES = ("out_of_memory", "lost", "warm_up")
STAND_IN = torch.device("cpu:0")


class DeviceFaults:
    """Plays a device, and lets it fail where it is told to.

    Args:
        setting: "NAME" or "NAME:N", N the times to come by, from 1 on; empty plays nothing.

    Raises:
        InvalidArgumentError: there is no such fault, or N is no such number.
    """

    def __init__(self, setting: str = "") -> None:
        self._name, self._num_left = parse_moment(setting, VARIABLE, NAMES)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> DeviceFaults:
        """Returns what the environment asks for, and warns of it.

        Raises:
            InvalidArgumentError: as the constructor does.
        """
        setting = environment.get(VARIABLE, "")
        faults = cls(setting)
        if setting:
            logger.warning(
                "the CPU plays a device that fails, as %s=%s asks for", VARIABLE, setting
            )
        return faults

    @property
    def stand_in(self) -> torch.device | None:
        """What is planned on in place of a CUDA device; None for the device itself."""
        return STAND_IN if self._name else None

    def before_warm_up(self, device: torch.device) -> None:
        """Fails if that is the fault."""
        if self._name == "warm_up" and device == STAND_IN:
            self._fail_in_time()

    def around(self, solve_many: SolveMany) -> SolveMany:
        """Returns planning that fails if that is the fault, and the time."""
        if self._name in ("", "warm_up"):
            return solve_many

        def failing(
            tasks: Sequence[SolveTask], *, device: torch.device
        ) -> Sequence[Plan | PlannerError]:
            if device == STAND_IN:
                self._fail_in_time()
            return solve_many(tasks, device=device)

        return failing

    def _fail_in_time(self) -> None:
        """Raises what a device would, if it is time."""
        self._num_left -= 1
        if self._num_left != 0:
            return
        if self._name == "out_of_memory":
            raise torch.cuda.OutOfMemoryError(f"CUDA out of memory, as {VARIABLE} asks for.")
        raise RuntimeError(f"CUDA error: device lost, as {VARIABLE} asks for")
