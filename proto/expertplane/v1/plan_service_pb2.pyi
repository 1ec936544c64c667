from expertplane.v1 import decision_pb2 as _decision_pb2
from expertplane.v1 import deployment_pb2 as _deployment_pb2
from expertplane.v1 import plan_pb2 as _plan_pb2
from expertplane.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PlanAlias(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PLAN_ALIAS_UNSPECIFIED: _ClassVar[PlanAlias]
    PLAN_ALIAS_COMMITTED: _ClassVar[PlanAlias]
    PLAN_ALIAS_LATEST: _ClassVar[PlanAlias]

class WatchState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WATCH_STATE_UNSPECIFIED: _ClassVar[WatchState]
    WATCH_STATE_DEPLOYMENT_UNKNOWN: _ClassVar[WatchState]
    WATCH_STATE_WAITING: _ClassVar[WatchState]
PLAN_ALIAS_UNSPECIFIED: PlanAlias
PLAN_ALIAS_COMMITTED: PlanAlias
PLAN_ALIAS_LATEST: PlanAlias
WATCH_STATE_UNSPECIFIED: WatchState
WATCH_STATE_DEPLOYMENT_UNKNOWN: WatchState
WATCH_STATE_WAITING: WatchState

class ComputePlanRequest(_message.Message):
    __slots__ = ("weight", "samples", "topology", "num_expert_groups", "policy", "engine", "incumbent_phy2log", "omit_derived_maps")
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    TOPOLOGY_FIELD_NUMBER: _ClassVar[int]
    NUM_EXPERT_GROUPS_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    INCUMBENT_PHY2LOG_FIELD_NUMBER: _ClassVar[int]
    OMIT_DERIVED_MAPS_FIELD_NUMBER: _ClassVar[int]
    weight: _tensor_pb2.Tensor
    samples: _tensor_pb2.Tensor
    topology: _deployment_pb2.Topology
    num_expert_groups: int
    policy: _deployment_pb2.PolicySpec
    engine: _deployment_pb2.EngineProfile
    incumbent_phy2log: _tensor_pb2.Tensor
    omit_derived_maps: bool
    def __init__(self, weight: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., samples: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., topology: _Optional[_Union[_deployment_pb2.Topology, _Mapping]] = ..., num_expert_groups: _Optional[int] = ..., policy: _Optional[_Union[_deployment_pb2.PolicySpec, _Mapping]] = ..., engine: _Optional[_Union[_deployment_pb2.EngineProfile, _Mapping]] = ..., incumbent_phy2log: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., omit_derived_maps: bool = ...) -> None: ...

class ComputePlanResponse(_message.Message):
    __slots__ = ("plan",)
    PLAN_FIELD_NUMBER: _ClassVar[int]
    plan: _plan_pb2.Plan
    def __init__(self, plan: _Optional[_Union[_plan_pb2.Plan, _Mapping]] = ...) -> None: ...

class GetPlanRequest(_message.Message):
    __slots__ = ("deployment", "version", "alias", "omit_derived_maps")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    OMIT_DERIVED_MAPS_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    version: int
    alias: PlanAlias
    omit_derived_maps: bool
    def __init__(self, deployment: _Optional[str] = ..., version: _Optional[int] = ..., alias: _Optional[_Union[PlanAlias, str]] = ..., omit_derived_maps: bool = ...) -> None: ...

class GetPlanResponse(_message.Message):
    __slots__ = ("plan",)
    PLAN_FIELD_NUMBER: _ClassVar[int]
    plan: _plan_pb2.Plan
    def __init__(self, plan: _Optional[_Union[_plan_pb2.Plan, _Mapping]] = ...) -> None: ...

class ListPlansRequest(_message.Message):
    __slots__ = ("deployment", "page_size", "page_token")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    page_size: int
    page_token: str
    def __init__(self, deployment: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListPlansResponse(_message.Message):
    __slots__ = ("plans", "next_page_token")
    PLANS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    plans: _containers.RepeatedCompositeFieldContainer[_plan_pb2.PlanMetadata]
    next_page_token: str
    def __init__(self, plans: _Optional[_Iterable[_Union[_plan_pb2.PlanMetadata, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchPlansRequest(_message.Message):
    __slots__ = ("deployment", "from_version", "omit_derived_maps")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    FROM_VERSION_FIELD_NUMBER: _ClassVar[int]
    OMIT_DERIVED_MAPS_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    from_version: int
    omit_derived_maps: bool
    def __init__(self, deployment: _Optional[str] = ..., from_version: _Optional[int] = ..., omit_derived_maps: bool = ...) -> None: ...

class WatchPlansResponse(_message.Message):
    __slots__ = ("epoch", "plan", "state")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    plan: _plan_pb2.Plan
    state: WatchState
    def __init__(self, epoch: _Optional[int] = ..., plan: _Optional[_Union[_plan_pb2.Plan, _Mapping]] = ..., state: _Optional[_Union[WatchState, str]] = ...) -> None: ...

class DiffPlansRequest(_message.Message):
    __slots__ = ("deployment", "from_version", "to_version")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    FROM_VERSION_FIELD_NUMBER: _ClassVar[int]
    TO_VERSION_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    from_version: int
    to_version: int
    def __init__(self, deployment: _Optional[str] = ..., from_version: _Optional[int] = ..., to_version: _Optional[int] = ...) -> None: ...

class SlotChange(_message.Message):
    __slots__ = ("layer", "slot", "from_expert", "to_expert")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    FROM_EXPERT_FIELD_NUMBER: _ClassVar[int]
    TO_EXPERT_FIELD_NUMBER: _ClassVar[int]
    layer: int
    slot: int
    from_expert: int
    to_expert: int
    def __init__(self, layer: _Optional[int] = ..., slot: _Optional[int] = ..., from_expert: _Optional[int] = ..., to_expert: _Optional[int] = ...) -> None: ...

class DiffPlansResponse(_message.Message):
    __slots__ = ("changes", "moved_slots_per_layer", "transfers")
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    MOVED_SLOTS_PER_LAYER_FIELD_NUMBER: _ClassVar[int]
    TRANSFERS_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[SlotChange]
    moved_slots_per_layer: _containers.RepeatedScalarFieldContainer[int]
    transfers: _plan_pb2.TransferSchedule
    def __init__(self, changes: _Optional[_Iterable[_Union[SlotChange, _Mapping]]] = ..., moved_slots_per_layer: _Optional[_Iterable[int]] = ..., transfers: _Optional[_Union[_plan_pb2.TransferSchedule, _Mapping]] = ...) -> None: ...

class PublishPlanRequest(_message.Message):
    __slots__ = ("deployment", "phy2log", "comment", "request_id", "expected_head")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    PHY2LOG_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_HEAD_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    phy2log: _tensor_pb2.Tensor
    comment: str
    request_id: str
    expected_head: int
    def __init__(self, deployment: _Optional[str] = ..., phy2log: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., comment: _Optional[str] = ..., request_id: _Optional[str] = ..., expected_head: _Optional[int] = ...) -> None: ...

class PublishPlanResponse(_message.Message):
    __slots__ = ("plan",)
    PLAN_FIELD_NUMBER: _ClassVar[int]
    plan: _plan_pb2.PlanMetadata
    def __init__(self, plan: _Optional[_Union[_plan_pb2.PlanMetadata, _Mapping]] = ...) -> None: ...

class RebalanceRequest(_message.Message):
    __slots__ = ("deployment", "request_id", "expected_head")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_HEAD_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    request_id: str
    expected_head: int
    def __init__(self, deployment: _Optional[str] = ..., request_id: _Optional[str] = ..., expected_head: _Optional[int] = ...) -> None: ...

class RebalanceResponse(_message.Message):
    __slots__ = ("decision",)
    DECISION_FIELD_NUMBER: _ClassVar[int]
    decision: _decision_pb2.Decision
    def __init__(self, decision: _Optional[_Union[_decision_pb2.Decision, _Mapping]] = ...) -> None: ...

class RollBackRequest(_message.Message):
    __slots__ = ("deployment", "to_version", "request_id", "expected_head")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    TO_VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_HEAD_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    to_version: int
    request_id: str
    expected_head: int
    def __init__(self, deployment: _Optional[str] = ..., to_version: _Optional[int] = ..., request_id: _Optional[str] = ..., expected_head: _Optional[int] = ...) -> None: ...

class RollBackResponse(_message.Message):
    __slots__ = ("plan",)
    PLAN_FIELD_NUMBER: _ClassVar[int]
    plan: _plan_pb2.PlanMetadata
    def __init__(self, plan: _Optional[_Union[_plan_pb2.PlanMetadata, _Mapping]] = ...) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ("deployment", "comment", "request_id")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    comment: str
    request_id: str
    def __init__(self, deployment: _Optional[str] = ..., comment: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class PauseResponse(_message.Message):
    __slots__ = ("deployment",)
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    deployment: _deployment_pb2.Deployment
    def __init__(self, deployment: _Optional[_Union[_deployment_pb2.Deployment, _Mapping]] = ...) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ("deployment", "request_id")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    request_id: str
    def __init__(self, deployment: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class ResumeResponse(_message.Message):
    __slots__ = ("deployment",)
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    deployment: _deployment_pb2.Deployment
    def __init__(self, deployment: _Optional[_Union[_deployment_pb2.Deployment, _Mapping]] = ...) -> None: ...

class ExplainDecisionsRequest(_message.Message):
    __slots__ = ("deployment", "after_sequence", "limit")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    after_sequence: int
    limit: int
    def __init__(self, deployment: _Optional[str] = ..., after_sequence: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class ExplainDecisionsResponse(_message.Message):
    __slots__ = ("decisions",)
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    decisions: _containers.RepeatedCompositeFieldContainer[_decision_pb2.Decision]
    def __init__(self, decisions: _Optional[_Iterable[_Union[_decision_pb2.Decision, _Mapping]]] = ...) -> None: ...
