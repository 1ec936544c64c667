"""A plan as the client knows it: immutable, and checked against its digest at birth."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane.v1 import decision_pb2, plan_pb2
from expertplane.wire import derive_log2phy, derive_logcnt, digest_phy2log

from .errors import ProtocolError
from .names import bare_name, mode_name
from .tensors import from_tensor
from .transfers import Transfers


if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


MAX_LAYERS = 256
MAX_LOGICAL_EXPERTS = 4096
MAX_SLOTS = 65536


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """A placement of expert replicas on slots, with where it comes from and what it promises.

    Raises:
        ValueError: `phy2log` does not fit `num_logical_experts`, leaves an expert without a slot,
            or is not what `digest` says.
    """

    phy2log: NDArray[np.int32]
    """[num_layers, num_slots] int32, read-only: the logical expert of every slot, -1 on masked
    ranks. Copied at birth."""

    num_logical_experts: int
    """Logical experts per layer, 1 to 4096."""

    digest: str
    """Lowercase hex sha256 of the map, see `expertplane.wire.digest_phy2log`."""

    deployment: str = ""
    """The plan's deployment; empty when nothing is stored (ComputePlan)."""

    version: int = 0
    """Number of the plan in its deployment; 0 when nothing is stored."""

    epoch: int = 0
    """The planner's term in which the version was assigned."""

    generation: int = 0
    """The topology generation that the plan is for."""

    parent_version: int = 0
    """The plan in force when this one was made; 0 is the engine's start placement."""

    state: str = "UNSPECIFIED"
    """Bare name of the plan's state, such as "COMMITTED"."""

    policy: str = ""
    """The algorithm that made it."""

    parameters: Mapping[str, str] = field(default_factory=dict)
    """Parameters of the policy by name, written as in TOML. Copied at birth."""

    mode: str = "unspecified"
    """The mode that was really used, such as "hierarchical"."""

    spill: int = 0
    """Replicas per layer that were allowed to leave their expert group's node."""

    seed: int = 0
    """Seed given to the policy."""

    reason: str = "UNSPECIFIED"
    """Bare name of the decision that published it, such as "PUBLISHED"."""

    balancedness: float = 0.0
    """Predicted: sum over layers of mean rank load over the sum of maxima; 0 when not scored."""

    per_layer: tuple[float, ...] = ()
    """Predicted mean over maximum rank load of every layer; empty when not scored."""

    moved_slots: int = 0
    """Slots, summed over layers, whose rank has to fetch an expert, against the parent."""

    transfers: Transfers | None = None
    """The migration from the parent; None when it was not told, as to participants."""

    solve_s: float = 0.0
    """Time that the solver took, in seconds."""

    created_at: datetime.datetime | None = None
    """The planner's wall clock, with time zone; None when it was not told."""

    comment: str = ""
    """What the operator said who published it, or the planner of a plan that is part of a
    chain."""

    def __post_init__(self) -> None:
        _check_shape(self.phy2log, self.num_logical_experts)
        phy2log = np.array(self.phy2log, dtype=np.int32, order="C")
        phy2log.flags.writeable = False
        object.__setattr__(self, "phy2log", phy2log)
        object.__setattr__(self, "parameters", MappingProxyType(dict(self.parameters)))
        _check_experts(phy2log, self.num_logical_experts)
        digest = digest_phy2log(phy2log)
        if digest != self.digest:
            raise ValueError(f"Expected phy2log with the digest {self.digest!r}, got {digest!r}.")

    @property
    def num_layers(self) -> int:
        """Layers that are planned."""
        return int(self.phy2log.shape[0])

    @property
    def num_slots(self) -> int:
        """Slots per layer over all ranks."""
        return int(self.phy2log.shape[1])

    def logcnt(self) -> NDArray[np.int32]:
        """Returns the number of replicas of every logical expert.

        Returns:
            [num_layers, num_logical_experts] int32, at least 1.
        """
        return derive_logcnt(self.phy2log, self.num_logical_experts)

    def log2phy(self) -> NDArray[np.int32]:
        """Returns the slots of every logical expert.

        Returns:
            [num_layers, num_logical_experts, X] int32, ascending, padded with -1; X is the largest
            number of replicas.
        """
        return derive_log2phy(self.phy2log, self.num_logical_experts)

    @classmethod
    def from_message(cls, message: plan_pb2.Plan) -> Plan:
        """Returns the plan that a message carries; derived maps in it are not looked at.

        Raises:
            ProtocolError: the message breaks the contract, for example its digest does not match.
        """
        metadata = message.metadata
        limits = (MAX_LAYERS, MAX_SLOTS)
        phy2log = from_tensor(message.phy2log, field="plan.phy2log", max_shape=limits)
        if phy2log.shape != (metadata.num_layers, metadata.num_slots):
            raise ProtocolError(
                f"Expected plan.phy2log of shape [{metadata.num_layers}, {metadata.num_slots}] as "
                f"its metadata says, got {list(phy2log.shape)}."
            )
        try:
            return cls(
                phy2log=phy2log,
                transfers=(
                    Transfers.from_message(message.transfers)
                    if message.HasField("transfers")
                    else None
                ),
                **_fields(metadata),
            )
        except (ValueError, OverflowError) as error:
            raise ProtocolError(str(error)) from error


def _fields(metadata: plan_pb2.PlanMetadata) -> dict[str, Any]:
    has_time = metadata.HasField("created_at")
    return {
        "num_logical_experts": metadata.num_logical_experts,
        "digest": metadata.digest,
        "deployment": metadata.deployment,
        "version": metadata.version,
        "epoch": metadata.epoch,
        "generation": metadata.generation,
        "parent_version": metadata.parent_version,
        "state": bare_name(plan_pb2.PlanState, metadata.state),
        "policy": metadata.policy.name,
        "parameters": dict(metadata.policy.parameters),
        "mode": mode_name(metadata.policy.mode),
        "spill": metadata.policy.max_foreign_replicas,
        "seed": metadata.policy.seed,
        "reason": bare_name(decision_pb2.DecisionReason, metadata.reason),
        "balancedness": metadata.predicted.balancedness,
        "per_layer": tuple(metadata.predicted.per_layer),
        "moved_slots": metadata.moved_slots,
        "solve_s": metadata.solve_s,
        "created_at": metadata.created_at.ToDatetime(datetime.UTC) if has_time else None,
        "comment": metadata.comment,
    }


def _check_shape(phy2log: NDArray[Any], num_logical_experts: int) -> None:
    if phy2log.dtype.kind != "i":
        raise ValueError(f"Expected phy2log of integers, got {phy2log.dtype.name}.")
    if phy2log.ndim != 2 or 0 in phy2log.shape:
        raise ValueError(f"Expected phy2log of shape [layers, slots], got {list(phy2log.shape)}.")
    num_layers, num_slots = phy2log.shape
    if num_layers > MAX_LAYERS or num_slots > MAX_SLOTS:
        raise ValueError(
            f"Expected phy2log of at most {MAX_LAYERS} layers and {MAX_SLOTS} slots, "
            f"got {num_layers} and {num_slots}."
        )
    if not 1 <= num_logical_experts <= MAX_LOGICAL_EXPERTS:
        raise ValueError(
            f"Expected num_logical_experts in [1, {MAX_LOGICAL_EXPERTS}], "
            f"got {num_logical_experts}."
        )


def _check_experts(phy2log: NDArray[np.int32], num_logical_experts: int) -> None:
    lowest, highest = int(phy2log.min()), int(phy2log.max())
    if lowest < -1 or highest >= num_logical_experts:
        raise ValueError(
            f"Expected experts in [0, {num_logical_experts}) and -1 for masked slots, "
            f"got {lowest} to {highest}."
        )
    missing = np.argwhere(derive_logcnt(phy2log, num_logical_experts) == 0)
    if missing.size:
        layer, expert = missing[0].tolist()
        raise ValueError(
            f"Expected a slot for every logical expert, got none for expert {expert} in layer "
            f"{layer}."
        )
