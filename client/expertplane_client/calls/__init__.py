"""Every call that the planner serves, described once. Does no I/O.

A `Call` says what to send and how to read the answer; a `Flow`, for what takes several calls, is a
generator that yields them and receives their answers. `Client` and `BlockingClient` only carry
them out.
"""

from .base import Call, Flow, Page
from .computing import compute_plan
from .deployments import (
    create_deployment,
    delete_deployment,
    get_deployment,
    get_load,
    list_deployments,
    update_deployment,
)
from .orders import pause, publish_plan, rebalance, resume, roll_back
from .plans import diff_plans, explain_decisions, get_plan, list_plans


__all__ = [
    "Call",
    "Flow",
    "Page",
    "compute_plan",
    "create_deployment",
    "delete_deployment",
    "diff_plans",
    "explain_decisions",
    "get_deployment",
    "get_load",
    "get_plan",
    "list_deployments",
    "list_plans",
    "pause",
    "publish_plan",
    "rebalance",
    "resume",
    "roll_back",
    "update_deployment",
]
