"""What a serving engine accepts of a placement, beyond that every expert has a slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from expertplane_planner.errors import InvalidInputError, InvalidPlacementError


if TYPE_CHECKING:
    from .placement import Placement


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRules:
    """Rules that bind a solve. That no expert changes its slot inside a rank always holds.

    Raises:
        InvalidInputError: A bound leaves its range; the field is `rules.<name>`.
    """

    forbid_duplicates: bool = False
    """Two replicas of one expert on one rank are refused, as by vLLM-Ascend."""

    max_replicas_per_expert: int | None = None
    """Replicas of one expert in one layer, at most; None is as many as there are slots."""

    def __post_init__(self) -> None:
        most = self.max_replicas_per_expert
        if most is not None and not (_is_whole(most) and most >= 1):
            raise InvalidInputError(
                "rules.max_replicas_per_expert",
                f"Expected max_replicas_per_expert to be a whole number from 1, got {most!r}.",
            )

    @property
    def are_any(self) -> bool:
        """Whether there is a rule at all."""
        return self.forbid_duplicates or self.max_replicas_per_expert is not None

    def accept(self, placement: Placement) -> bool:
        """Return whether a placement keeps the rules."""
        try:
            self.check(placement)
        except InvalidPlacementError:
            return False
        return True

    def check(self, placement: Placement) -> None:
        """Check that a placement keeps the rules.

        Raises:
            InvalidPlacementError: It does not; the first layer at fault is named.
        """
        if self.forbid_duplicates:
            duplicates = placement.num_duplicates()
            at_fault = duplicates.nonzero().flatten().tolist()
            if at_fault:
                layer = at_fault[0]
                raise InvalidPlacementError(
                    "placement.phy2log",
                    "Expected no rank with two replicas of one expert, "
                    f"got {int(duplicates[layer])} such slots in layer {layer}.",
                )
        most = self.max_replicas_per_expert
        if most is None:
            return
        logcnt = placement.logcnt()
        too_many = (logcnt > most).nonzero().tolist()
        if too_many:
            layer, expert = too_many[0]
            raise InvalidPlacementError(
                "placement.phy2log",
                f"Expected at most {most} replicas of an expert, "
                f"got {int(logcnt[layer, expert])} of expert {expert} in layer {layer}.",
            )
