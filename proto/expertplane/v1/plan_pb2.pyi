from expertplane.v1 import decision_pb2 as _decision_pb2
from expertplane.v1 import deployment_pb2 as _deployment_pb2
from expertplane.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PlanState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PLAN_STATE_UNSPECIFIED: _ClassVar[PlanState]
    PLAN_STATE_COMPUTED: _ClassVar[PlanState]
    PLAN_STATE_STAGING: _ClassVar[PlanState]
    PLAN_STATE_COMMITTED: _ClassVar[PlanState]
    PLAN_STATE_APPLIED: _ClassVar[PlanState]
    PLAN_STATE_ABORTED: _ClassVar[PlanState]
    PLAN_STATE_SUPERSEDED: _ClassVar[PlanState]

class LinkClass(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LINK_CLASS_UNSPECIFIED: _ClassVar[LinkClass]
    LINK_CLASS_SAME_RANK: _ClassVar[LinkClass]
    LINK_CLASS_SAME_NODE: _ClassVar[LinkClass]
    LINK_CLASS_CROSS_NODE: _ClassVar[LinkClass]
    LINK_CLASS_STORAGE: _ClassVar[LinkClass]
PLAN_STATE_UNSPECIFIED: PlanState
PLAN_STATE_COMPUTED: PlanState
PLAN_STATE_STAGING: PlanState
PLAN_STATE_COMMITTED: PlanState
PLAN_STATE_APPLIED: PlanState
PLAN_STATE_ABORTED: PlanState
PLAN_STATE_SUPERSEDED: PlanState
LINK_CLASS_UNSPECIFIED: LinkClass
LINK_CLASS_SAME_RANK: LinkClass
LINK_CLASS_SAME_NODE: LinkClass
LINK_CLASS_CROSS_NODE: LinkClass
LINK_CLASS_STORAGE: LinkClass

class BalanceReport(_message.Message):
    __slots__ = ("balancedness", "layer_mean", "layer_minimum", "per_layer")
    BALANCEDNESS_FIELD_NUMBER: _ClassVar[int]
    LAYER_MEAN_FIELD_NUMBER: _ClassVar[int]
    LAYER_MINIMUM_FIELD_NUMBER: _ClassVar[int]
    PER_LAYER_FIELD_NUMBER: _ClassVar[int]
    balancedness: float
    layer_mean: float
    layer_minimum: float
    per_layer: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, balancedness: _Optional[float] = ..., layer_mean: _Optional[float] = ..., layer_minimum: _Optional[float] = ..., per_layer: _Optional[_Iterable[float]] = ...) -> None: ...

class Transfer(_message.Message):
    __slots__ = ("layer", "logical_expert", "source_slot", "target_slot", "round", "link_class")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    LOGICAL_EXPERT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_SLOT_FIELD_NUMBER: _ClassVar[int]
    TARGET_SLOT_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    LINK_CLASS_FIELD_NUMBER: _ClassVar[int]
    layer: int
    logical_expert: int
    source_slot: int
    target_slot: int
    round: int
    link_class: LinkClass
    def __init__(self, layer: _Optional[int] = ..., logical_expert: _Optional[int] = ..., source_slot: _Optional[int] = ..., target_slot: _Optional[int] = ..., round: _Optional[int] = ..., link_class: _Optional[_Union[LinkClass, str]] = ...) -> None: ...

class TransferSchedule(_message.Message):
    __slots__ = ("parent_version", "transfers", "total_bytes", "estimated_s")
    PARENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    TRANSFERS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_S_FIELD_NUMBER: _ClassVar[int]
    parent_version: int
    transfers: _containers.RepeatedCompositeFieldContainer[Transfer]
    total_bytes: int
    estimated_s: float
    def __init__(self, parent_version: _Optional[int] = ..., transfers: _Optional[_Iterable[_Union[Transfer, _Mapping]]] = ..., total_bytes: _Optional[int] = ..., estimated_s: _Optional[float] = ...) -> None: ...

class PlanMetadata(_message.Message):
    __slots__ = ("deployment", "version", "epoch", "generation", "parent_version", "state", "digest", "num_layers", "num_slots", "num_logical_experts", "policy", "reason", "predicted", "moved_slots", "solve_s", "created_at", "comment")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PARENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    NUM_LAYERS_FIELD_NUMBER: _ClassVar[int]
    NUM_SLOTS_FIELD_NUMBER: _ClassVar[int]
    NUM_LOGICAL_EXPERTS_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_FIELD_NUMBER: _ClassVar[int]
    MOVED_SLOTS_FIELD_NUMBER: _ClassVar[int]
    SOLVE_S_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    version: int
    epoch: int
    generation: int
    parent_version: int
    state: PlanState
    digest: str
    num_layers: int
    num_slots: int
    num_logical_experts: int
    policy: _deployment_pb2.PolicySpec
    reason: _decision_pb2.DecisionReason
    predicted: BalanceReport
    moved_slots: int
    solve_s: float
    created_at: _timestamp_pb2.Timestamp
    comment: str
    def __init__(self, deployment: _Optional[str] = ..., version: _Optional[int] = ..., epoch: _Optional[int] = ..., generation: _Optional[int] = ..., parent_version: _Optional[int] = ..., state: _Optional[_Union[PlanState, str]] = ..., digest: _Optional[str] = ..., num_layers: _Optional[int] = ..., num_slots: _Optional[int] = ..., num_logical_experts: _Optional[int] = ..., policy: _Optional[_Union[_deployment_pb2.PolicySpec, _Mapping]] = ..., reason: _Optional[_Union[_decision_pb2.DecisionReason, str]] = ..., predicted: _Optional[_Union[BalanceReport, _Mapping]] = ..., moved_slots: _Optional[int] = ..., solve_s: _Optional[float] = ..., created_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., comment: _Optional[str] = ...) -> None: ...

class Plan(_message.Message):
    __slots__ = ("metadata", "phy2log", "log2phy", "logcnt", "transfers")
    METADATA_FIELD_NUMBER: _ClassVar[int]
    PHY2LOG_FIELD_NUMBER: _ClassVar[int]
    LOG2PHY_FIELD_NUMBER: _ClassVar[int]
    LOGCNT_FIELD_NUMBER: _ClassVar[int]
    TRANSFERS_FIELD_NUMBER: _ClassVar[int]
    metadata: PlanMetadata
    phy2log: _tensor_pb2.Tensor
    log2phy: _tensor_pb2.Tensor
    logcnt: _tensor_pb2.Tensor
    transfers: TransferSchedule
    def __init__(self, metadata: _Optional[_Union[PlanMetadata, _Mapping]] = ..., phy2log: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., log2phy: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., logcnt: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., transfers: _Optional[_Union[TransferSchedule, _Mapping]] = ...) -> None: ...
