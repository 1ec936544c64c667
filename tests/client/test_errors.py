"""The exception tree and its table."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from expertplane_client import errors
from expertplane_client.errors import ERROR_BY_STATUS, CallError, ExpertplaneError
from expertplane_client.rich_status import STATUS_KEY, reason_and_field


def test_every_status_has_an_error() -> None:
    """Every gRPC status but OK becomes one class of the tree."""
    assert set(grpc.StatusCode) - {grpc.StatusCode.OK} == set(ERROR_BY_STATUS)
    assert all(issubclass(kind, CallError) for kind in ERROR_BY_STATUS.values())


def test_every_call_error_has_a_status() -> None:
    """No class of call errors is left that nothing can raise."""
    assert set(CallError.__subclasses__()) == set(ERROR_BY_STATUS.values())


def test_the_tree_is_drawn() -> None:
    """Every class of the module appears in its drawing and hangs on one root."""
    kinds = [value for value in vars(errors).values() if isinstance(value, type)]
    tree = [kind for kind in kinds if issubclass(kind, Exception)]

    assert errors.__doc__ is not None
    assert [kind.__name__ for kind in tree if kind.__name__ not in errors.__doc__] == []
    assert [kind for kind in tree if not issubclass(kind, ExpertplaneError)] == []


def test_reason_and_field_are_read_from_standard_details() -> None:
    """ErrorInfo gives the reason and BadRequest the field, though their package is not used."""
    status = status_pb2.Status(code=3, message="no")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="BAD_SHAPE", domain="x"))
    violation = error_details_pb2.BadRequest.FieldViolation(field="topology.num_slots")
    status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))

    found = reason_and_field(((STATUS_KEY, status.SerializeToString()),))

    assert found == ("BAD_SHAPE", "topology.num_slots")


@pytest.mark.parametrize(
    "metadata",
    [(), (("other-bin", b"x"),), ((STATUS_KEY, b"\xff\xff\xff"),)],
    ids=["none", "another key", "damaged"],
)
def test_details_that_cannot_be_read_are_left_out(
    metadata: tuple[tuple[str, bytes], ...],
) -> None:
    """An error without readable details is still an error, with an empty reason."""
    assert reason_and_field(metadata) == ("", "")
