"""Traffic that changes from one sample to the next, as when a tenant goes and another comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertplane_planner.errors import InvalidInputError

from .synthetic import SyntheticTrace


if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from .config import TraceConfig


class SwitchingTrace(SyntheticTrace):
    """A synthetic trace whose traffic mix turns over once: what was rare becomes frequent.

    The mix's logits change their sign, which keeps their distribution, and drift on from there.
    Up to the switch the samples are those of `SyntheticTrace`.

    Args:
        config: Dimensions, skew, noise and drift.
        seed: Seed of the whole trace, non-negative.
        switch_at_sample: First sample after the switch, non-negative.

    Raises:
        InvalidInputError: The seed or the switch is negative.
    """

    def __init__(self, config: TraceConfig, seed: int, *, switch_at_sample: int) -> None:
        if switch_at_sample < 0:
            raise InvalidInputError(
                "switch_at_sample",
                f"Expected switch_at_sample to be non-negative, got {switch_at_sample}.",
            )
        super().__init__(config, seed)
        self._num_until_switch = switch_at_sample

    def next_sample(self) -> npt.NDArray[np.int64]:
        """Return the token counts of the next sample and advance the trace.

        Returns:
            [num_layers, num_logical_experts] int64, tokens.
        """
        if self._num_until_switch == 0:
            self._mix_logits = -self._mix_logits
        self._num_until_switch -= 1
        return super().next_sample()
