"""Everything that the planner raises.

PlannerError
`-- InvalidInputError (also a ValueError)
    |-- InvalidTopologyError
    |-- InvalidLoadError
    |-- InvalidPlacementError
    `-- UnknownPolicyError

Every message states the expectation first and then the offending value.
"""

from __future__ import annotations


class PlannerError(Exception):
    """Base of every error that the planner raises on purpose."""


class InvalidInputError(PlannerError, ValueError):
    """An argument breaks a rule that the caller can read up.

    Attributes:
        field: The offending parameter as the caller knows it, for example `topology.num_slots`.
        message: The expectation, then the offending value.
    """

    def __init__(self, field: str, message: str) -> None:
        # Both go into `args`, so that the error survives pickling on its way between processes.
        super().__init__(field, message)
        self.field = field
        self.message = message

    def __str__(self) -> str:
        return self.message


class InvalidTopologyError(InvalidInputError):
    """Nodes, ranks and slots do not divide evenly or leave their bounds."""


class InvalidLoadError(InvalidInputError):
    """Token counts have the wrong shape or dtype, or hold a value that is no count."""


class InvalidPlacementError(InvalidInputError):
    """A map of slots does not place every logical expert, or places one that does not exist."""


class UnknownPolicyError(InvalidInputError):
    """No policy of this name is built in or installed, or the installed one does not load."""
