"""The client's plan and its digest."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from expertplane.wire import digest_phy2log
from expertplane_client import Plan, ProtocolError

from . import builders


if TYPE_CHECKING:
    from expertplane.v1 import plan_pb2


def test_the_digest_is_the_pinned_one() -> None:
    """Every party computes the same digest for the test vector of the contract."""
    assert digest_phy2log(builders.phy2log()) == builders.PINNED_DIGEST


@pytest.mark.parametrize("dtype", ["<i2", ">i4", "<i8"])
def test_the_digest_is_about_the_map_only(dtype: str) -> None:
    """Neither the dtype nor the memory layout of the array shows in the digest."""
    array = np.asfortranarray(builders.phy2log().astype(dtype))

    assert digest_phy2log(array) == builders.PINNED_DIGEST


@given(st.data())
def test_derived_maps_agree_with_a_slow_reference(data: st.DataObject) -> None:
    """log2phy and logcnt are what a loop over all slots finds, masked slots left out."""
    num_layers = data.draw(st.integers(1, 4))
    num_experts = data.draw(st.integers(1, 6))
    extra = data.draw(st.lists(st.integers(-1, num_experts - 1), max_size=6))
    rows = [data.draw(st.permutations([*range(num_experts), *extra])) for _ in range(num_layers)]
    array = np.array(rows, dtype=np.int32)
    plan = Plan(phy2log=array, num_logical_experts=num_experts, digest=digest_phy2log(array))

    slots = [
        [[slot for slot, held in enumerate(row) if held == e] for e in range(num_experts)]
        for row in rows
    ]
    counts = [[len(found) for found in layer] for layer in slots]
    width = max(len(found) for layer in slots for found in layer)
    padded = [[found + [-1] * (width - len(found)) for found in layer] for layer in slots]

    np.testing.assert_array_equal(padded, plan.log2phy())
    np.testing.assert_array_equal(counts, plan.logcnt())


def test_a_migration_becomes_a_table() -> None:
    """All that a message tells of a migration is on the plan; nothing to move is no row."""
    message = builders.plan_message(5)
    message.transfers.CopyFrom(builders.transfers_message())
    told = Plan.from_message(message).transfers
    message.transfers.ClearField("transfers")
    empty = Plan.from_message(message).transfers

    assert told is not None
    assert told.table.tolist() == [[1, 2, 0, 3, 1]]
    assert told.links == ("SAME_NODE",)
    assert (told.parent_version, told.total_bytes, told.estimated_s) == (4, 88, 0.5)
    assert empty is not None
    assert (empty.table.shape, empty.links) == ((0, 5), ())


def test_a_message_becomes_a_plan() -> None:
    """All that a message tells is on the plan, enums under their bare names."""
    plan = builders.plan(4, epoch=2)

    assert (
        plan.deployment,
        plan.version,
        plan.epoch,
        plan.generation,
        plan.parent_version,
    ) == (builders.DEPLOYMENT, 4, 2, 1, 3)
    assert (
        plan.state,
        plan.reason,
        plan.policy,
        plan.mode,
        plan.seed,
    ) == ("COMMITTED", "PUBLISHED", "deepseek", "global", 7)
    assert (
        plan.balancedness,
        plan.per_layer,
        plan.moved_slots,
        plan.solve_s,
    ) == (0.9, (0.8, 1.0), 3, 0.25)
    assert datetime.datetime(2026, 11, 21, 9, tzinfo=datetime.UTC) == plan.created_at


def test_a_plan_cannot_be_changed() -> None:
    """The map is read-only and is not the array that it was made from."""
    array = builders.phy2log()
    plan = Plan(phy2log=array, num_logical_experts=3, digest=builders.PINNED_DIGEST)
    array[0, 0] = 2

    assert plan.phy2log[0, 0] == 0
    with pytest.raises(ValueError, match="read-only"):
        plan.phy2log[0, 0] = 1


def test_a_reason_of_a_later_release_is_kept_by_number() -> None:
    """An enum value that this release does not know does not make the plan unreadable."""
    message = builders.plan_message()
    message.metadata.reason = 77  # type: ignore[assignment]

    assert Plan.from_message(message).reason == "UNKNOWN_77"


def _set(field: str, value: Any) -> Any:
    return lambda message: setattr(message.metadata, field, value)


def _hold(rows: list[list[int]]) -> Any:
    def change(message: plan_pb2.Plan) -> None:
        array = np.array(rows, dtype="<i4")
        message.phy2log.data = array.tobytes()
        message.metadata.digest = digest_phy2log(array)

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set("digest", "0" * 64),
        _set("num_layers", 3),
        _set("num_logical_experts", 2),
        _set("num_logical_experts", 0),
        _hold([[0, 1, 2, 3], [2, 1, 0, 1]]),
        _hold([[0, 1, 2, -2], [2, 1, 0, 1]]),
        _hold([[0, 1, 1, 0], [2, 1, 0, 1]]),
    ],
    ids=["digest", "shape", "expert above E", "E", "unknown expert", "below -1", "missing expert"],
)
def test_a_plan_that_breaks_the_contract_is_refused(change: Any) -> None:
    """A plan that is not what it says never becomes a Plan."""
    message = builders.plan_message()
    change(message)

    with pytest.raises(ProtocolError, match="Expected"):
        Plan.from_message(message)
