"""The client of Expertplane: asks a planner, and takes part in its deployments.

Importing it needs grpcio, protobuf and numpy, and nothing else.
"""

from .backoff import Backoff
from .blocking import BlockingClient
from .cache import CacheEntry, PlanCache
from .client import Client
from .effects import Problem
from .errors import (
    AbortedError,
    AlreadyExistsError,
    CacheError,
    CallCancelledError,
    CallError,
    DeadlineExceededError,
    ExpertplaneError,
    FailedPreconditionError,
    FormatError,
    InputError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    PlannerDefectError,
    PlanUnacceptableError,
    ProtocolError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
)
from .load import LoadForecast
from .participant import Participant
from .plan import Plan
from .plan_diff import PlanDiff
from .statistics import Statistics
from .transfers import Transfers


__all__ = [
    "AbortedError",
    "AlreadyExistsError",
    "Backoff",
    "BlockingClient",
    "CacheEntry",
    "CacheError",
    "CallCancelledError",
    "CallError",
    "Client",
    "DeadlineExceededError",
    "ExpertplaneError",
    "FailedPreconditionError",
    "FormatError",
    "InputError",
    "InvalidArgumentError",
    "LoadForecast",
    "NotFoundError",
    "Participant",
    "PermissionDeniedError",
    "Plan",
    "PlanCache",
    "PlanDiff",
    "PlanUnacceptableError",
    "PlannerDefectError",
    "Problem",
    "ProtocolError",
    "ResourceExhaustedError",
    "Statistics",
    "Transfers",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
]
