"""What every trace offers: an endless stream of load samples, one by one or in windows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from expertplane_planner.errors import InvalidInputError


if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt


class LoadTrace(ABC):
    """An endless stream of load samples; the same arguments and seed give the same samples."""

    @abstractmethod
    def next_sample(self) -> npt.NDArray[np.int64]:
        """Return the token counts of the next sample and advance the trace.

        Returns:
            [num_layers, num_logical_experts] int64, tokens.
        """

    def windows(self, num_samples: int) -> Iterator[npt.NDArray[np.int64]]:
        """Yield windows of `num_samples` consecutive samples, for ever.

        Yields:
            [num_samples, num_layers, num_logical_experts] int64, tokens.

        Raises:
            InvalidInputError: `num_samples` is not positive; raised by the first step.
        """
        if num_samples < 1:
            raise InvalidInputError(
                "num_samples", f"Expected num_samples to be positive, got {num_samples}."
            )
        while True:
            yield np.stack([self.next_sample() for _ in range(num_samples)])


def seeded_generator(seed: int) -> np.random.Generator:
    """Return the generator that a trace draws from.

    Raises:
        InvalidInputError: The seed is negative.
    """
    if seed < 0:
        raise InvalidInputError("seed", f"Expected seed to be non-negative, got {seed}.")
    return np.random.default_rng(seed)
