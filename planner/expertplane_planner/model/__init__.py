"""The planner's frozen nouns: what goes into a solve and what comes out."""

from .digest import digest_phy2log
from .load import ExpertLoad
from .mode import Mode, resolve_mode
from .placement import Placement
from .plan import Plan
from .report import BalanceReport
from .topology import Topology


__all__ = [
    "BalanceReport",
    "ExpertLoad",
    "Mode",
    "Placement",
    "Plan",
    "Topology",
    "digest_phy2log",
    "resolve_mode",
]
