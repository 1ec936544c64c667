"""The placement in force, and what may be spent to leave it."""

from __future__ import annotations

from dataclasses import dataclass, field

from expertplane_planner.errors import InvalidInputError

from .benefit import BenefitTerms
from .budget import MoveBudget
from .load import ExpertLoad
from .placement import Placement


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Incumbent:
    """What a new plan is measured against.

    Raises:
        InvalidInputError: A part is of another type; the field is `incumbent.<name>`.
    """

    placement: Placement
    """In force: of the same layers, experts, nodes, ranks and slots as the plan to be made. Its
    masked ranks may be others, as when a rank was lost since."""

    budget: MoveBudget = field(default_factory=MoveBudget)
    """Moved slots, at most."""

    held_out: ExpertLoad | None = None
    """Samples that the plan is not made from, to judge gain and cost by; None judges by what is
    predicted."""

    terms: BenefitTerms = field(default_factory=BenefitTerms)
    """What time is worth and what moving costs."""

    def __post_init__(self) -> None:
        for name, kind in (
            ("placement", Placement),
            ("budget", MoveBudget),
            ("held_out", ExpertLoad | None),
            ("terms", BenefitTerms),
        ):
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise InvalidInputError(
                    f"incumbent.{name}",
                    f"Expected {name} of type {kind}, got {type(value).__name__}.",
                )
