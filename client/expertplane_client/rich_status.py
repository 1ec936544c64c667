"""Reads the machine's part of a gRPC error: the reason and the offending field.

They travel as `google.rpc` messages in the trailing metadata. The base install has no package of
those messages, so the few fields that are needed are declared here, in a descriptor pool of their
own that cannot clash with the real ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError


if TYPE_CHECKING:
    from collections.abc import Iterable


STATUS_KEY = "grpc-status-details-bin"

_PACKAGE = "expertplane.client.rich_status"
_Field = descriptor_pb2.FieldDescriptorProto


def reason_and_field(metadata: Iterable[tuple[str, str | bytes]]) -> tuple[str, str]:
    """Returns the reason and the first offending field of a failed call, empty where absent.

    Args:
        metadata: The trailing metadata of the call.
    """
    reason, field = "", ""
    for key, value in metadata:
        if key != STATUS_KEY or not isinstance(value, bytes):
            continue
        for kind, payload in _details(value):
            if kind == "google.rpc.ErrorInfo":
                reason = reason or _parse("ErrorInfo", payload).reason
            elif kind == "google.rpc.BadRequest":
                violations = _parse("BadRequest", payload).field_violations
                field = field or (violations[0].field if violations else "")
    return reason, field


def _details(status: bytes) -> Iterable[tuple[str, bytes]]:
    for detail in _parse("Status", status).details:
        yield detail.type_url.rpartition("/")[2], detail.value


def _parse(name: str, payload: bytes) -> Any:
    message = _MESSAGES[name]()
    try:
        message.ParseFromString(payload)
    except DecodeError:
        # Details only explain: an error whose explanation is damaged is still that error.
        return _MESSAGES[name]()
    return message


def _string(name: str, number: int) -> _Field:
    return _Field(name=name, number=number, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL)


def _bytes(name: str, number: int) -> _Field:
    return _Field(name=name, number=number, type=_Field.TYPE_BYTES, label=_Field.LABEL_OPTIONAL)


def _repeated(name: str, number: int, type_name: str) -> _Field:
    return _Field(
        name=name,
        number=number,
        type=_Field.TYPE_MESSAGE,
        label=_Field.LABEL_REPEATED,
        type_name=f".{_PACKAGE}.{type_name}",
    )


def _declare() -> dict[str, Any]:
    shapes = {
        "Any": [_string("type_url", 1), _bytes("value", 2)],
        "Status": [_repeated("details", 3, "Any")],
        "ErrorInfo": [_string("reason", 1)],
        "FieldViolation": [_string("field", 1)],
        "BadRequest": [_repeated("field_violations", 1, "FieldViolation")],
    }
    file = descriptor_pb2.FileDescriptorProto(
        name="expertplane_client/rich_status.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in shapes.items():
        file.message_type.add(name=name).field.extend(fields)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in shapes
    }


_MESSAGES = _declare()
