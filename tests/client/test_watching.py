"""What a watch tells people while it waits."""

from __future__ import annotations

import random

import grpc
import pytest

from expertplane.v1 import plan_service_pb2 as plans_pb2
from expertplane_client.backoff import Backoff
from expertplane_client.errors import InvalidArgumentError, UnavailableError
from expertplane_client.watching import METHOD, WatchCursor

from . import builders


def cursor(said: list[str]) -> WatchCursor:
    """Returns a cursor that notes what it says."""
    return WatchCursor(builders.DEPLOYMENT, 0, Backoff(), random.Random(0), said.append)


def test_each_reason_to_wait_is_told_once() -> None:
    """An unknown deployment and a planner that is away are told; repeats and plans are not."""
    said: list[str] = []
    watch = cursor(said)
    unknown = plans_pb2.WatchPlansResponse(epoch=1, state=plans_pb2.WATCH_STATE_DEPLOYMENT_UNKNOWN)
    away = UnavailableError("nobody there", code=grpc.StatusCode.UNAVAILABLE, method=METHOD)
    watch.on_response(unknown)
    watch.on_response(unknown)
    watch.on_failure(away)
    watch.on_response(plans_pb2.WatchPlansResponse(epoch=1, plan=builders.plan_message(1)))
    watch.on_failure(away)

    assert said == [
        f"The planner knows no deployment {builders.DEPLOYMENT} yet.",
        "nobody there",
        "nobody there",
    ]


def test_a_refusal_ends_the_watch() -> None:
    """Only a planner that is away is waited for."""
    refusal = InvalidArgumentError(
        "bad name", code=grpc.StatusCode.INVALID_ARGUMENT, method=METHOD
    )

    with pytest.raises(InvalidArgumentError):
        cursor([]).on_failure(refusal)
