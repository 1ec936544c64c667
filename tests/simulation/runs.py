"""One world from its seed to its end, and what there is to tell about it."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from .loop import ViolationError
from .world import World


@dataclass(frozen=True, slots=True)
class Story:
    """A world that has come to its end.

    Attributes:
        error: what went wrong: a ViolationError, or a defect of the models; None when all is well.
    """

    seed: int
    world: World
    error: Exception | None

    @property
    def invariant(self) -> str:
        """The invariant that did not hold; empty when all did."""
        if isinstance(self.error, ViolationError):
            return self.error.invariant
        return "" if self.error is None else "model"

    def told(self, tail: int) -> str:
        """Tell what went wrong, after the last lines of the trace."""
        lines = self.world.loop.lines(tail)
        error = self.error
        if error is not None and not (isinstance(error, ViolationError) and not error.__cause__):
            lines += traceback.format_exception(error)
        return "\n".join([*lines, f"seed {self.seed}: {error!r}"])


def run(seed: int, world_class: type[World] = World) -> Story:
    """Let a world live to its end."""
    world = world_class(seed)
    try:
        world.run()
    except Exception as error:  # whatever it is, the seed and the trace are wanted
        return Story(seed, world, error)
    return Story(seed, world, None)
