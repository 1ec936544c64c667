"""The client's commands: ask a running planner, and give it orders. Needs click and rich."""

from .computing import compute_plan
from .deployments import deployments
from .export import export
from .history import diff, explain, plans, show, watch
from .orders import pause, publish, rebalance, resume, rollback
from .status import status


__all__ = [
    "compute_plan",
    "deployments",
    "diff",
    "explain",
    "export",
    "pause",
    "plans",
    "publish",
    "rebalance",
    "resume",
    "rollback",
    "show",
    "status",
    "watch",
]
