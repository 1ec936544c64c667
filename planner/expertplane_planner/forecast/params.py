"""How a forecast learns: windows, forgetting, memory and alarm, with units and reasons."""

from __future__ import annotations

import math
from dataclasses import dataclass

from expertplane_planner.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastParams:
    """Parameters of `Forecast`.

    Raises:
        InvalidInputError: A parameter leaves its range; the field is `forecast.<parameter>`.
    """

    recent_windows: int = 1
    """Windows whose samples make the recent mean, 1 to 16. On recorded mixes that drift, one
    foresees 2-20 % better than two."""

    half_life_windows: float = 100.0
    """Windows after which an error, or a window in the long-run mean, counts half; 1 to 1e6."""

    shrinkage: float | None = None
    """How far the mean goes from the recent one to the long-run one, in [0, 1]. None learns it:
    the value that would have foreseen the windows so far best."""

    max_bytes: int = 64 * 2**20
    """Bound of the second moment. Dense float32 while that fits, beyond it of low rank plus a
    diagonal. What is common takes an eighth of it at most, everything else about
    8 * (recent_windows + 1) bytes per expert and layer."""

    max_rank: int = 64
    """Rank of the second moment where dense does not fit, at most; 1 to 1024."""

    common_rank: int = 16
    """Directions that errors of all layers have in common, at most; 0 to 64. 0 lets every layer
    learn alone. Fewer where an eighth of `max_bytes`, which they may take on top, is too little.
    16 are enough for mixes of ten domains; the weakest measures the noise."""

    num_requests: int = 256
    """Independent requests behind a sample, as long as nothing is known; see `prior`."""

    alarm_sds: float = 4.0
    """Standard deviations by which the logarithm of the discrepancy between forecast and window
    must exceed its mean to be an alarm; 1 to 100."""

    alarm_warmup_windows: int = 8
    """Windows judged before the first alarm: fewer say little about what is usual; 2 to 1e6."""

    def __post_init__(self) -> None:
        self._check_range("recent_windows", 1, 16)
        self._check_range("half_life_windows", 1, 10**6)
        self._check_range("max_bytes", 1, 2**40)
        self._check_range("max_rank", 1, 1024)
        self._check_range("common_rank", 0, 64)
        self._check_range("num_requests", 1, 2**31)
        self._check_range("alarm_sds", 1, 100)
        self._check_range("alarm_warmup_windows", 2, 10**6)
        if self.shrinkage is not None:
            self._check_range("shrinkage", 0, 1)

    @property
    def decay(self) -> float:
        """What a window's weight is multiplied with when the next one comes."""
        return float(0.5 ** (1.0 / self.half_life_windows))

    def _check_range(self, name: str, lowest: int, highest: int) -> None:
        value = getattr(self, name)
        if not (math.isfinite(value) and lowest <= value <= highest):
            raise InvalidInputError(
                f"forecast.{name}", f"Expected {name} in [{lowest}, {highest}], got {value}."
            )
