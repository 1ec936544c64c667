from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ProblemCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROBLEM_CODE_UNSPECIFIED: _ClassVar[ProblemCode]
    PROBLEM_CODE_INVALID_ARGUMENT: _ClassVar[ProblemCode]
    PROBLEM_CODE_NOT_FOUND: _ClassVar[ProblemCode]
    PROBLEM_CODE_FAILED_PRECONDITION: _ClassVar[ProblemCode]
    PROBLEM_CODE_ALREADY_EXISTS: _ClassVar[ProblemCode]
    PROBLEM_CODE_RESOURCE_EXHAUSTED: _ClassVar[ProblemCode]
    PROBLEM_CODE_UNIMPLEMENTED: _ClassVar[ProblemCode]
PROBLEM_CODE_UNSPECIFIED: ProblemCode
PROBLEM_CODE_INVALID_ARGUMENT: ProblemCode
PROBLEM_CODE_NOT_FOUND: ProblemCode
PROBLEM_CODE_FAILED_PRECONDITION: ProblemCode
PROBLEM_CODE_ALREADY_EXISTS: ProblemCode
PROBLEM_CODE_RESOURCE_EXHAUSTED: ProblemCode
PROBLEM_CODE_UNIMPLEMENTED: ProblemCode

class Problem(_message.Message):
    __slots__ = ("code", "reason", "field", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: ProblemCode
    reason: str
    field: str
    message: str
    def __init__(self, code: _Optional[_Union[ProblemCode, str]] = ..., reason: _Optional[str] = ..., field: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...
