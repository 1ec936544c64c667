"""A plan: a placement, where it came from, and how good it looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Mapping

    from .benefit import NetBenefit
    from .mode import Mode
    from .placement import Placement
    from .report import BalanceReport
    from .transfers import TransferSchedule


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """What a solve hands back. It carries no version: that is given when a plan is stored."""

    placement: Placement
    """The placement, verified."""

    policy: str
    """Name of the policy that made it."""

    policy_params: Mapping[str, object]
    """Parameters of the policy by name; copied at birth, to be read only."""

    mode: Mode
    """Mode that the solve ran in, never `Mode.AUTO`."""

    spill: int
    """Foreign replicas per layer that the solve was allowed, see `Mode.SOFT_HIERARCHICAL`."""

    foreign_replicas: tuple[int, ...] | None
    """Foreign replicas of each layer; None in global mode, where experts have no home."""

    seed: int
    """Seed given to the policy."""

    balance: BalanceReport
    """Balance of the placement under the very load that it was made from (in sample)."""

    moved_slots: tuple[int, ...] | None = None
    """Slots of each layer that move from the placement in force; None if there was none."""

    transfers: TransferSchedule | None = None
    """The copies that lead there from the placement in force; None if there was none."""

    benefit: NetBenefit | None = None
    """Gain and cost against the placement in force, or what repair had to make of it; None if
    there was none."""

    seconds: float
    """Time of the solve, from its arguments to the verified and scored placement."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "policy_params", dict(self.policy_params))

    @property
    def digest(self) -> str:
        """Sha256 of the map in lowercase hex, see `digest_phy2log`."""
        return self.placement.digest()
