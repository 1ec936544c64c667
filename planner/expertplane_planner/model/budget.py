"""How far a plan may depart from the placement in force."""

from __future__ import annotations

from dataclasses import dataclass

from expertplane_planner.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveBudget:
    """Moved slots (see `Placement.moved_slots`) that a plan may cost. None is no limit.

    Raises:
        InvalidInputError: A limit is negative; the field is `budget.<name>`.
    """

    slots_per_layer: int | None = None
    """Moved slots in each layer, at most."""

    total_slots: int | None = None
    """Moved slots over all layers, at most; they go to the layers where they gain most."""

    def __post_init__(self) -> None:
        for name in ("slots_per_layer", "total_slots"):
            limit = getattr(self, name)
            is_whole = isinstance(limit, int) and not isinstance(limit, bool)
            if limit is not None and not (is_whole and limit >= 0):
                raise InvalidInputError(
                    f"budget.{name}",
                    f"Expected {name} to be a whole number from 0, got {limit!r}.",
                )

    @classmethod
    def of_bytes(
        cls, total_bytes: int, bytes_per_expert: int, *, slots_per_layer: int | None = None
    ) -> MoveBudget:
        """Return the budget of slots that so many bytes of weights allow.

        Args:
            total_bytes: Weights that may be copied, over all layers.
            bytes_per_expert: Size of one expert's weights in one layer, at least 1.
            slots_per_layer: As for the class.

        Raises:
            InvalidInputError: A size leaves its range.
        """
        if bytes_per_expert < 1:
            raise InvalidInputError(
                "budget.bytes_per_expert",
                f"Expected bytes_per_expert to be positive, got {bytes_per_expert}.",
            )
        if total_bytes < 0:
            raise InvalidInputError(
                "budget.total_bytes", f"Expected total_bytes of at least 0, got {total_bytes}."
            )
        return cls(slots_per_layer=slots_per_layer, total_slots=total_bytes // bytes_per_expert)
