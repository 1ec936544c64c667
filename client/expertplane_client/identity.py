"""Who a participant is: what its Hello says and never changes while the process lives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from expertplane.wire import digest_phy2log

from .errors import InputError
from .names import check_deployment, check_token


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


_MAX_RANKS = 4096


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Identity:
    """One start of one participant.

    Raises:
        InputError: a name is out of its pattern, the ranks are not ascending, or the start
            placement is no map of integers.
    """

    deployment: str
    """ "namespace/name"."""

    participant_id: str
    """Names the participant within its deployment; the same after a restart."""

    ranks: tuple[int, ...]
    """Ranks that the participant answers for, ascending."""

    incarnation: str
    """UUID of this start of the process."""

    engine_run_id: str
    """Names the run of the engine; all participants of one run share it."""

    generation: int = 0
    """Topology generation that the engine was started with; 0 accepts the current one."""

    initial_phy2log: NDArray[np.integer[Any]] | None = None
    """[num_layers, num_slots], the engine's start placement; None means that slot p holds expert
    p mod num_logical_experts. Copied at birth."""

    max_staged_bytes: int = 0
    """Size of the spare weight buffers of each rank, in bytes; 0 means no limit."""

    def __post_init__(self) -> None:
        check_deployment(self.deployment)
        check_token("participant_id", self.participant_id)
        check_token("engine_run_id", self.engine_run_id)
        is_ascending = all(a < b for a, b in zip(self.ranks, self.ranks[1:], strict=False))
        if (
            not self.ranks
            or not is_ascending
            or not 0 <= self.ranks[0] <= self.ranks[-1] < _MAX_RANKS
        ):
            raise InputError(
                f"Expected ranks in [0, {_MAX_RANKS}), ascending and without repeats, "
                f"got {list(self.ranks)}."
            )
        if self.generation < 0 or self.max_staged_bytes < 0:
            raise InputError(
                "Expected generation and max_staged_bytes not to be negative, "
                f"got {self.generation} and {self.max_staged_bytes}."
            )
        start = self.initial_phy2log
        if start is not None and (start.ndim != 2 or start.dtype.kind != "i" or not start.size):
            raise InputError(
                "Expected initial_phy2log of shape [layers, slots] and integers, "
                f"got {list(start.shape)} x {start.dtype.name}."
            )
        if start is not None:
            object.__setattr__(self, "initial_phy2log", start.copy())

    def initial_digest(self) -> str:
        """Returns the digest of the start placement; empty when the planner works it out."""
        return "" if self.initial_phy2log is None else digest_phy2log(self.initial_phy2log)
