from expertplane.v1 import decision_pb2 as _decision_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODE_UNSPECIFIED: _ClassVar[Mode]
    MODE_AUTO: _ClassVar[Mode]
    MODE_HIERARCHICAL: _ClassVar[Mode]
    MODE_GLOBAL: _ClassVar[Mode]
    MODE_SOFT_HIERARCHICAL: _ClassVar[Mode]

class Engine(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENGINE_UNSPECIFIED: _ClassVar[Engine]
    ENGINE_VLLM: _ClassVar[Engine]
    ENGINE_SGLANG: _ClassVar[Engine]
    ENGINE_TENSORRT_LLM: _ClassVar[Engine]
    ENGINE_VLLM_ASCEND: _ClassVar[Engine]

class RolloutMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLLOUT_MODE_UNSPECIFIED: _ClassVar[RolloutMode]
    ROLLOUT_MODE_SHADOW: _ClassVar[RolloutMode]
    ROLLOUT_MODE_ADVISORY: _ClassVar[RolloutMode]
    ROLLOUT_MODE_COORDINATED: _ClassVar[RolloutMode]
MODE_UNSPECIFIED: Mode
MODE_AUTO: Mode
MODE_HIERARCHICAL: Mode
MODE_GLOBAL: Mode
MODE_SOFT_HIERARCHICAL: Mode
ENGINE_UNSPECIFIED: Engine
ENGINE_VLLM: Engine
ENGINE_SGLANG: Engine
ENGINE_TENSORRT_LLM: Engine
ENGINE_VLLM_ASCEND: Engine
ROLLOUT_MODE_UNSPECIFIED: RolloutMode
ROLLOUT_MODE_SHADOW: RolloutMode
ROLLOUT_MODE_ADVISORY: RolloutMode
ROLLOUT_MODE_COORDINATED: RolloutMode

class Topology(_message.Message):
    __slots__ = ("num_nodes", "ranks_per_node", "slots_per_rank", "masked_ranks", "rank_capacities")
    NUM_NODES_FIELD_NUMBER: _ClassVar[int]
    RANKS_PER_NODE_FIELD_NUMBER: _ClassVar[int]
    SLOTS_PER_RANK_FIELD_NUMBER: _ClassVar[int]
    MASKED_RANKS_FIELD_NUMBER: _ClassVar[int]
    RANK_CAPACITIES_FIELD_NUMBER: _ClassVar[int]
    num_nodes: int
    ranks_per_node: int
    slots_per_rank: int
    masked_ranks: _containers.RepeatedScalarFieldContainer[int]
    rank_capacities: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, num_nodes: _Optional[int] = ..., ranks_per_node: _Optional[int] = ..., slots_per_rank: _Optional[int] = ..., masked_ranks: _Optional[_Iterable[int]] = ..., rank_capacities: _Optional[_Iterable[float]] = ...) -> None: ...

class EngineProfile(_message.Message):
    __slots__ = ("engine", "forbid_duplicates_on_rank", "forbid_moves_inside_rank", "max_replicas_per_expert")
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    FORBID_DUPLICATES_ON_RANK_FIELD_NUMBER: _ClassVar[int]
    FORBID_MOVES_INSIDE_RANK_FIELD_NUMBER: _ClassVar[int]
    MAX_REPLICAS_PER_EXPERT_FIELD_NUMBER: _ClassVar[int]
    engine: Engine
    forbid_duplicates_on_rank: bool
    forbid_moves_inside_rank: bool
    max_replicas_per_expert: int
    def __init__(self, engine: _Optional[_Union[Engine, str]] = ..., forbid_duplicates_on_rank: bool = ..., forbid_moves_inside_rank: bool = ..., max_replicas_per_expert: _Optional[int] = ...) -> None: ...

class PolicySpec(_message.Message):
    __slots__ = ("name", "parameters", "mode", "max_foreign_replicas", "seed", "max_moved_slots_per_layer")
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    MAX_FOREIGN_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    MAX_MOVED_SLOTS_PER_LAYER_FIELD_NUMBER: _ClassVar[int]
    name: str
    parameters: _containers.ScalarMap[str, str]
    mode: Mode
    max_foreign_replicas: int
    seed: int
    max_moved_slots_per_layer: int
    def __init__(self, name: _Optional[str] = ..., parameters: _Optional[_Mapping[str, str]] = ..., mode: _Optional[_Union[Mode, str]] = ..., max_foreign_replicas: _Optional[int] = ..., seed: _Optional[int] = ..., max_moved_slots_per_layer: _Optional[int] = ...) -> None: ...

class ForecastParameters(_message.Message):
    __slots__ = ("recent_windows", "half_life_windows")
    RECENT_WINDOWS_FIELD_NUMBER: _ClassVar[int]
    HALF_LIFE_WINDOWS_FIELD_NUMBER: _ClassVar[int]
    recent_windows: int
    half_life_windows: float
    def __init__(self, recent_windows: _Optional[int] = ..., half_life_windows: _Optional[float] = ...) -> None: ...

class TriggerParameters(_message.Message):
    __slots__ = ("window_samples", "max_window_s", "min_samples", "cooldown_s", "min_gain", "horizon_s", "moe_time_fraction", "stall_fraction", "safety")
    WINDOW_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    MAX_WINDOW_S_FIELD_NUMBER: _ClassVar[int]
    MIN_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    COOLDOWN_S_FIELD_NUMBER: _ClassVar[int]
    MIN_GAIN_FIELD_NUMBER: _ClassVar[int]
    HORIZON_S_FIELD_NUMBER: _ClassVar[int]
    MOE_TIME_FRACTION_FIELD_NUMBER: _ClassVar[int]
    STALL_FRACTION_FIELD_NUMBER: _ClassVar[int]
    SAFETY_FIELD_NUMBER: _ClassVar[int]
    window_samples: int
    max_window_s: float
    min_samples: int
    cooldown_s: float
    min_gain: float
    horizon_s: float
    moe_time_fraction: float
    stall_fraction: float
    safety: float
    def __init__(self, window_samples: _Optional[int] = ..., max_window_s: _Optional[float] = ..., min_samples: _Optional[int] = ..., cooldown_s: _Optional[float] = ..., min_gain: _Optional[float] = ..., horizon_s: _Optional[float] = ..., moe_time_fraction: _Optional[float] = ..., stall_fraction: _Optional[float] = ..., safety: _Optional[float] = ...) -> None: ...

class SampleParameters(_message.Message):
    __slots__ = ("deadline_s", "min_coverage")
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    MIN_COVERAGE_FIELD_NUMBER: _ClassVar[int]
    deadline_s: float
    min_coverage: float
    def __init__(self, deadline_s: _Optional[float] = ..., min_coverage: _Optional[float] = ...) -> None: ...

class RolloutParameters(_message.Message):
    __slots__ = ("mode", "stage_deadline_s", "regression_tolerance", "hold_down_s")
    MODE_FIELD_NUMBER: _ClassVar[int]
    STAGE_DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    REGRESSION_TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    HOLD_DOWN_S_FIELD_NUMBER: _ClassVar[int]
    mode: RolloutMode
    stage_deadline_s: float
    regression_tolerance: float
    hold_down_s: float
    def __init__(self, mode: _Optional[_Union[RolloutMode, str]] = ..., stage_deadline_s: _Optional[float] = ..., regression_tolerance: _Optional[float] = ..., hold_down_s: _Optional[float] = ...) -> None: ...

class MigrationParameters(_message.Message):
    __slots__ = ("bytes_per_expert", "intra_node_bytes_per_s", "inter_node_bytes_per_s")
    BYTES_PER_EXPERT_FIELD_NUMBER: _ClassVar[int]
    INTRA_NODE_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    INTER_NODE_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    bytes_per_expert: int
    intra_node_bytes_per_s: float
    inter_node_bytes_per_s: float
    def __init__(self, bytes_per_expert: _Optional[int] = ..., intra_node_bytes_per_s: _Optional[float] = ..., inter_node_bytes_per_s: _Optional[float] = ...) -> None: ...

class DeploymentSpec(_message.Message):
    __slots__ = ("model_name", "layer_ids", "num_logical_experts", "num_expert_groups", "topology", "engine", "policy", "forecast", "trigger", "samples", "rollout", "migration")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    LAYER_IDS_FIELD_NUMBER: _ClassVar[int]
    NUM_LOGICAL_EXPERTS_FIELD_NUMBER: _ClassVar[int]
    NUM_EXPERT_GROUPS_FIELD_NUMBER: _ClassVar[int]
    TOPOLOGY_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    FORECAST_FIELD_NUMBER: _ClassVar[int]
    TRIGGER_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    MIGRATION_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    layer_ids: _containers.RepeatedScalarFieldContainer[int]
    num_logical_experts: int
    num_expert_groups: int
    topology: Topology
    engine: EngineProfile
    policy: PolicySpec
    forecast: ForecastParameters
    trigger: TriggerParameters
    samples: SampleParameters
    rollout: RolloutParameters
    migration: MigrationParameters
    def __init__(self, model_name: _Optional[str] = ..., layer_ids: _Optional[_Iterable[int]] = ..., num_logical_experts: _Optional[int] = ..., num_expert_groups: _Optional[int] = ..., topology: _Optional[_Union[Topology, _Mapping]] = ..., engine: _Optional[_Union[EngineProfile, _Mapping]] = ..., policy: _Optional[_Union[PolicySpec, _Mapping]] = ..., forecast: _Optional[_Union[ForecastParameters, _Mapping]] = ..., trigger: _Optional[_Union[TriggerParameters, _Mapping]] = ..., samples: _Optional[_Union[SampleParameters, _Mapping]] = ..., rollout: _Optional[_Union[RolloutParameters, _Mapping]] = ..., migration: _Optional[_Union[MigrationParameters, _Mapping]] = ...) -> None: ...

class DeploymentStatus(_message.Message):
    __slots__ = ("head_version", "committed_version", "epoch", "num_participants", "last_decision", "is_paused", "staging_version", "applied_min_version", "applied_max_version", "num_samples", "num_dropped_samples", "pause_comment", "hold_down_s")
    HEAD_VERSION_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NUM_PARTICIPANTS_FIELD_NUMBER: _ClassVar[int]
    LAST_DECISION_FIELD_NUMBER: _ClassVar[int]
    IS_PAUSED_FIELD_NUMBER: _ClassVar[int]
    STAGING_VERSION_FIELD_NUMBER: _ClassVar[int]
    APPLIED_MIN_VERSION_FIELD_NUMBER: _ClassVar[int]
    APPLIED_MAX_VERSION_FIELD_NUMBER: _ClassVar[int]
    NUM_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    NUM_DROPPED_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    PAUSE_COMMENT_FIELD_NUMBER: _ClassVar[int]
    HOLD_DOWN_S_FIELD_NUMBER: _ClassVar[int]
    head_version: int
    committed_version: int
    epoch: int
    num_participants: int
    last_decision: _decision_pb2.Decision
    is_paused: bool
    staging_version: int
    applied_min_version: int
    applied_max_version: int
    num_samples: int
    num_dropped_samples: int
    pause_comment: str
    hold_down_s: float
    def __init__(self, head_version: _Optional[int] = ..., committed_version: _Optional[int] = ..., epoch: _Optional[int] = ..., num_participants: _Optional[int] = ..., last_decision: _Optional[_Union[_decision_pb2.Decision, _Mapping]] = ..., is_paused: bool = ..., staging_version: _Optional[int] = ..., applied_min_version: _Optional[int] = ..., applied_max_version: _Optional[int] = ..., num_samples: _Optional[int] = ..., num_dropped_samples: _Optional[int] = ..., pause_comment: _Optional[str] = ..., hold_down_s: _Optional[float] = ...) -> None: ...

class Deployment(_message.Message):
    __slots__ = ("name", "spec", "etag", "generation", "status")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    name: str
    spec: DeploymentSpec
    etag: str
    generation: int
    status: DeploymentStatus
    def __init__(self, name: _Optional[str] = ..., spec: _Optional[_Union[DeploymentSpec, _Mapping]] = ..., etag: _Optional[str] = ..., generation: _Optional[int] = ..., status: _Optional[_Union[DeploymentStatus, _Mapping]] = ...) -> None: ...
