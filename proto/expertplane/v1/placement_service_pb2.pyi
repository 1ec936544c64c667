from expertplane.v1 import plan_pb2 as _plan_pb2
from expertplane.v1 import problem_pb2 as _problem_pb2
from expertplane.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LoadKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOAD_KIND_UNSPECIFIED: _ClassVar[LoadKind]
    LOAD_KIND_LOGICAL: _ClassVar[LoadKind]
    LOAD_KIND_PHYSICAL: _ClassVar[LoadKind]

class LoadScope(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOAD_SCOPE_UNSPECIFIED: _ClassVar[LoadScope]
    LOAD_SCOPE_PARTICIPANT: _ClassVar[LoadScope]
    LOAD_SCOPE_DEPLOYMENT: _ClassVar[LoadScope]

class AckPhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACK_PHASE_UNSPECIFIED: _ClassVar[AckPhase]
    ACK_PHASE_STAGED: _ClassVar[AckPhase]
    ACK_PHASE_APPLIED: _ClassVar[AckPhase]

class PlanVerdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PLAN_VERDICT_UNSPECIFIED: _ClassVar[PlanVerdict]
    PLAN_VERDICT_UP_TO_DATE: _ClassVar[PlanVerdict]
    PLAN_VERDICT_TAKE_THIS_PLAN: _ClassVar[PlanVerdict]
    PLAN_VERDICT_NO_PLAN_YET: _ClassVar[PlanVerdict]
    PLAN_VERDICT_DEPLOYMENT_UNKNOWN: _ClassVar[PlanVerdict]
LOAD_KIND_UNSPECIFIED: LoadKind
LOAD_KIND_LOGICAL: LoadKind
LOAD_KIND_PHYSICAL: LoadKind
LOAD_SCOPE_UNSPECIFIED: LoadScope
LOAD_SCOPE_PARTICIPANT: LoadScope
LOAD_SCOPE_DEPLOYMENT: LoadScope
ACK_PHASE_UNSPECIFIED: AckPhase
ACK_PHASE_STAGED: AckPhase
ACK_PHASE_APPLIED: AckPhase
PLAN_VERDICT_UNSPECIFIED: PlanVerdict
PLAN_VERDICT_UP_TO_DATE: PlanVerdict
PLAN_VERDICT_TAKE_THIS_PLAN: PlanVerdict
PLAN_VERDICT_NO_PLAN_YET: PlanVerdict
PLAN_VERDICT_DEPLOYMENT_UNKNOWN: PlanVerdict

class ConnectRequest(_message.Message):
    __slots__ = ("hello", "load_report", "ack", "nack", "heartbeat", "goodbye")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    LOAD_REPORT_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    NACK_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    load_report: LoadReport
    ack: Ack
    nack: Nack
    heartbeat: ParticipantHeartbeat
    goodbye: Goodbye
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., load_report: _Optional[_Union[LoadReport, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., nack: _Optional[_Union[Nack, _Mapping]] = ..., heartbeat: _Optional[_Union[ParticipantHeartbeat, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ...) -> None: ...

class ConnectResponse(_message.Message):
    __slots__ = ("epoch", "nonce", "welcome", "report_ack", "refused", "stage", "commit", "abort", "flow", "heartbeat", "drain")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    REPORT_ACK_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    ABORT_FIELD_NUMBER: _ClassVar[int]
    FLOW_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    nonce: int
    welcome: Welcome
    report_ack: ReportAck
    refused: Refused
    stage: Stage
    commit: Commit
    abort: Abort
    flow: Flow
    heartbeat: PlannerHeartbeat
    drain: Drain
    def __init__(self, epoch: _Optional[int] = ..., nonce: _Optional[int] = ..., welcome: _Optional[_Union[Welcome, _Mapping]] = ..., report_ack: _Optional[_Union[ReportAck, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ..., stage: _Optional[_Union[Stage, _Mapping]] = ..., commit: _Optional[_Union[Commit, _Mapping]] = ..., abort: _Optional[_Union[Abort, _Mapping]] = ..., flow: _Optional[_Union[Flow, _Mapping]] = ..., heartbeat: _Optional[_Union[PlannerHeartbeat, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ...) -> None: ...

class PlanRef(_message.Message):
    __slots__ = ("version", "digest")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    version: int
    digest: str
    def __init__(self, version: _Optional[int] = ..., digest: _Optional[str] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("deployment", "participant_id", "ranks", "incarnation", "generation", "engine_run_id", "applied", "staged", "highest_version", "highest_epoch", "initial_phy2log", "max_staged_bytes", "capabilities")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_ID_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ENGINE_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    STAGED_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_VERSION_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    INITIAL_PHY2LOG_FIELD_NUMBER: _ClassVar[int]
    MAX_STAGED_BYTES_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    participant_id: str
    ranks: _containers.RepeatedScalarFieldContainer[int]
    incarnation: str
    generation: int
    engine_run_id: str
    applied: PlanRef
    staged: PlanRef
    highest_version: int
    highest_epoch: int
    initial_phy2log: _tensor_pb2.Tensor
    max_staged_bytes: int
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, deployment: _Optional[str] = ..., participant_id: _Optional[str] = ..., ranks: _Optional[_Iterable[int]] = ..., incarnation: _Optional[str] = ..., generation: _Optional[int] = ..., engine_run_id: _Optional[str] = ..., applied: _Optional[_Union[PlanRef, _Mapping]] = ..., staged: _Optional[_Union[PlanRef, _Mapping]] = ..., highest_version: _Optional[int] = ..., highest_epoch: _Optional[int] = ..., initial_phy2log: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., max_staged_bytes: _Optional[int] = ..., capabilities: _Optional[_Iterable[str]] = ...) -> None: ...

class LoadReport(_message.Message):
    __slots__ = ("sequence", "plan_version", "first_step", "steps_per_sample", "kind", "scope", "counts")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PLAN_VERSION_FIELD_NUMBER: _ClassVar[int]
    FIRST_STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_PER_SAMPLE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    plan_version: int
    first_step: int
    steps_per_sample: int
    kind: LoadKind
    scope: LoadScope
    counts: _tensor_pb2.Tensor
    def __init__(self, sequence: _Optional[int] = ..., plan_version: _Optional[int] = ..., first_step: _Optional[int] = ..., steps_per_sample: _Optional[int] = ..., kind: _Optional[_Union[LoadKind, str]] = ..., scope: _Optional[_Union[LoadScope, str]] = ..., counts: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("nonce", "version", "phase", "step", "digest")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    nonce: int
    version: int
    phase: AckPhase
    step: int
    digest: str
    def __init__(self, nonce: _Optional[int] = ..., version: _Optional[int] = ..., phase: _Optional[_Union[AckPhase, str]] = ..., step: _Optional[int] = ..., digest: _Optional[str] = ...) -> None: ...

class Nack(_message.Message):
    __slots__ = ("nonce", "version", "problem", "is_transient")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    IS_TRANSIENT_FIELD_NUMBER: _ClassVar[int]
    nonce: int
    version: int
    problem: _problem_pb2.Problem
    is_transient: bool
    def __init__(self, nonce: _Optional[int] = ..., version: _Optional[int] = ..., problem: _Optional[_Union[_problem_pb2.Problem, _Mapping]] = ..., is_transient: bool = ...) -> None: ...

class ParticipantHeartbeat(_message.Message):
    __slots__ = ("applied",)
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    applied: PlanRef
    def __init__(self, applied: _Optional[_Union[PlanRef, _Mapping]] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("verdict", "plan", "generation", "heartbeat_interval_s", "report_interval_s", "max_samples_per_report", "max_message_bytes", "is_elected_reporter")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    REPORT_INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    MAX_SAMPLES_PER_REPORT_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    IS_ELECTED_REPORTER_FIELD_NUMBER: _ClassVar[int]
    verdict: PlanVerdict
    plan: _plan_pb2.Plan
    generation: int
    heartbeat_interval_s: float
    report_interval_s: float
    max_samples_per_report: int
    max_message_bytes: int
    is_elected_reporter: bool
    def __init__(self, verdict: _Optional[_Union[PlanVerdict, str]] = ..., plan: _Optional[_Union[_plan_pb2.Plan, _Mapping]] = ..., generation: _Optional[int] = ..., heartbeat_interval_s: _Optional[float] = ..., report_interval_s: _Optional[float] = ..., max_samples_per_report: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., is_elected_reporter: bool = ...) -> None: ...

class ReportAck(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("sequence", "problem")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    problem: _problem_pb2.Problem
    def __init__(self, sequence: _Optional[int] = ..., problem: _Optional[_Union[_problem_pb2.Problem, _Mapping]] = ...) -> None: ...

class Stage(_message.Message):
    __slots__ = ("plan", "deadline_s")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    plan: _plan_pb2.Plan
    deadline_s: float
    def __init__(self, plan: _Optional[_Union[_plan_pb2.Plan, _Mapping]] = ..., deadline_s: _Optional[float] = ...) -> None: ...

class Commit(_message.Message):
    __slots__ = ("version", "digest", "plan")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    version: int
    digest: str
    plan: _plan_pb2.Plan
    def __init__(self, version: _Optional[int] = ..., digest: _Optional[str] = ..., plan: _Optional[_Union[_plan_pb2.Plan, _Mapping]] = ...) -> None: ...

class Abort(_message.Message):
    __slots__ = ("version", "reason")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    version: int
    reason: str
    def __init__(self, version: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Flow(_message.Message):
    __slots__ = ("report_interval_s",)
    REPORT_INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    report_interval_s: float
    def __init__(self, report_interval_s: _Optional[float] = ...) -> None: ...

class PlannerHeartbeat(_message.Message):
    __slots__ = ("head_version", "committed_version")
    HEAD_VERSION_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    head_version: int
    committed_version: int
    def __init__(self, head_version: _Optional[int] = ..., committed_version: _Optional[int] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ("reconnect_window_s",)
    RECONNECT_WINDOW_S_FIELD_NUMBER: _ClassVar[int]
    reconnect_window_s: float
    def __init__(self, reconnect_window_s: _Optional[float] = ...) -> None: ...
