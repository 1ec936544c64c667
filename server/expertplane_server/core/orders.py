"""What an operator may ask of a deployment. Checked before they are made: `rpc.convert`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import numpy as np

    from expertplane_server.core.plan import Plan
    from expertplane_server.core.spec import DeploymentSpec


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish the operator's own placement.

    Attributes:
        phy2log: [num_layers, num_slots] integers; what it must hold is the core's to check.
        digest: digest of `phy2log`.
        comment: for people.
    """

    phy2log: np.ndarray[Any, Any]
    digest: str
    comment: str = ""


@dataclass(frozen=True, slots=True)
class RollBack:
    """Publish earlier content under a new version.

    Attributes:
        plan: whose content comes back; None for the start placement.
    """

    plan: Plan | None


@dataclass(frozen=True, slots=True)
class Rebalance:
    """Decide now, whatever cool-down, hold-down and pause say."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Stop automatic publication."""

    comment: str = ""


@dataclass(frozen=True, slots=True)
class Resume:
    """Lift a pause."""


@dataclass(frozen=True, slots=True)
class Update:
    """Replace the spec.

    Attributes:
        etag: the spec that it was written against.
    """

    spec: DeploymentSpec
    etag: str


Action = Publish | RollBack | Rebalance | Pause | Resume | Update
