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
    ProtocolError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
)
from .participant import Participant
from .plan import Plan
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
    "NotFoundError",
    "Participant",
    "PermissionDeniedError",
    "Plan",
    "PlanCache",
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
