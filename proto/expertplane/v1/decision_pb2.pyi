from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DecisionReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DECISION_REASON_UNSPECIFIED: _ClassVar[DecisionReason]
    DECISION_REASON_PUBLISHED: _ClassVar[DecisionReason]
    DECISION_REASON_SHADOW: _ClassVar[DecisionReason]
    DECISION_REASON_SKIPPED_FEW_SAMPLES: _ClassVar[DecisionReason]
    DECISION_REASON_SKIPPED_COOLDOWN: _ClassVar[DecisionReason]
    DECISION_REASON_SKIPPED_PAUSED: _ClassVar[DecisionReason]
    DECISION_REASON_SKIPPED_ROLLOUT_IN_FLIGHT: _ClassVar[DecisionReason]
    DECISION_REASON_SKIPPED_GAIN_TOO_SMALL: _ClassVar[DecisionReason]
    DECISION_REASON_SKIPPED_MIGRATION_TOO_DEAR: _ClassVar[DecisionReason]
    DECISION_REASON_SKIPPED_ZERO_LOAD: _ClassVar[DecisionReason]
    DECISION_REASON_FAILED_SOLVE: _ClassVar[DecisionReason]
    DECISION_REASON_FAILED_STORE: _ClassVar[DecisionReason]
    DECISION_REASON_PUBLISHED_BY_OPERATOR: _ClassVar[DecisionReason]
    DECISION_REASON_ROLLED_BACK: _ClassVar[DecisionReason]
    DECISION_REASON_ROLLED_BACK_REGRESSION: _ClassVar[DecisionReason]
    DECISION_REASON_FAILED_ROLLOUT: _ClassVar[DecisionReason]
    DECISION_REASON_SKIPPED_MEMBERS_MISSING: _ClassVar[DecisionReason]
    DECISION_REASON_SKIPPED_PLAN_REFUSED: _ClassVar[DecisionReason]
    DECISION_REASON_SKIPPED_HOLD_DOWN: _ClassVar[DecisionReason]
    DECISION_REASON_SKIPPED_BUFFERS_TOO_SMALL: _ClassVar[DecisionReason]

class Evaluation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVALUATION_UNSPECIFIED: _ClassVar[Evaluation]
    EVALUATION_HELD_OUT: _ClassVar[Evaluation]
    EVALUATION_IN_SAMPLE: _ClassVar[Evaluation]
    EVALUATION_PREDICTIVE: _ClassVar[Evaluation]
DECISION_REASON_UNSPECIFIED: DecisionReason
DECISION_REASON_PUBLISHED: DecisionReason
DECISION_REASON_SHADOW: DecisionReason
DECISION_REASON_SKIPPED_FEW_SAMPLES: DecisionReason
DECISION_REASON_SKIPPED_COOLDOWN: DecisionReason
DECISION_REASON_SKIPPED_PAUSED: DecisionReason
DECISION_REASON_SKIPPED_ROLLOUT_IN_FLIGHT: DecisionReason
DECISION_REASON_SKIPPED_GAIN_TOO_SMALL: DecisionReason
DECISION_REASON_SKIPPED_MIGRATION_TOO_DEAR: DecisionReason
DECISION_REASON_SKIPPED_ZERO_LOAD: DecisionReason
DECISION_REASON_FAILED_SOLVE: DecisionReason
DECISION_REASON_FAILED_STORE: DecisionReason
DECISION_REASON_PUBLISHED_BY_OPERATOR: DecisionReason
DECISION_REASON_ROLLED_BACK: DecisionReason
DECISION_REASON_ROLLED_BACK_REGRESSION: DecisionReason
DECISION_REASON_FAILED_ROLLOUT: DecisionReason
DECISION_REASON_SKIPPED_MEMBERS_MISSING: DecisionReason
DECISION_REASON_SKIPPED_PLAN_REFUSED: DecisionReason
DECISION_REASON_SKIPPED_HOLD_DOWN: DecisionReason
DECISION_REASON_SKIPPED_BUFFERS_TOO_SMALL: DecisionReason
EVALUATION_UNSPECIFIED: Evaluation
EVALUATION_HELD_OUT: Evaluation
EVALUATION_IN_SAMPLE: Evaluation
EVALUATION_PREDICTIVE: Evaluation

class Decision(_message.Message):
    __slots__ = ("sequence", "epoch", "reason", "message", "decided_at", "num_samples", "incumbent_version", "plan_version", "evaluation", "balancedness_before", "balancedness_after", "predicted_gain", "predicted_gain_s", "migration_cost_s", "moved_slots", "solve_s")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DECIDED_AT_FIELD_NUMBER: _ClassVar[int]
    NUM_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    INCUMBENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    PLAN_VERSION_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    BALANCEDNESS_BEFORE_FIELD_NUMBER: _ClassVar[int]
    BALANCEDNESS_AFTER_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_GAIN_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_GAIN_S_FIELD_NUMBER: _ClassVar[int]
    MIGRATION_COST_S_FIELD_NUMBER: _ClassVar[int]
    MOVED_SLOTS_FIELD_NUMBER: _ClassVar[int]
    SOLVE_S_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    epoch: int
    reason: DecisionReason
    message: str
    decided_at: _timestamp_pb2.Timestamp
    num_samples: int
    incumbent_version: int
    plan_version: int
    evaluation: Evaluation
    balancedness_before: float
    balancedness_after: float
    predicted_gain: float
    predicted_gain_s: float
    migration_cost_s: float
    moved_slots: int
    solve_s: float
    def __init__(self, sequence: _Optional[int] = ..., epoch: _Optional[int] = ..., reason: _Optional[_Union[DecisionReason, str]] = ..., message: _Optional[str] = ..., decided_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., num_samples: _Optional[int] = ..., incumbent_version: _Optional[int] = ..., plan_version: _Optional[int] = ..., evaluation: _Optional[_Union[Evaluation, str]] = ..., balancedness_before: _Optional[float] = ..., balancedness_after: _Optional[float] = ..., predicted_gain: _Optional[float] = ..., predicted_gain_s: _Optional[float] = ..., migration_cost_s: _Optional[float] = ..., moved_slots: _Optional[int] = ..., solve_s: _Optional[float] = ...) -> None: ...
