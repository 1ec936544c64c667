"""A schedule checks itself at birth, and adds up what it costs."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from expertplane.v1 import plan_pb2
from expertplane_planner import InvalidInputError, InvalidPlacementError, Placement, Topology
from expertplane_planner.model.transfers import LinkClass, LinkSpeed, TransferSchedule

from ...support import builders


TOPOLOGY = Topology(num_nodes=2, num_ranks=4, num_slots=8)


def _schedule(*transfers: tuple[int, ...], **changes: Any) -> TransferSchedule:
    """Return a schedule of (layer, expert, source slot, target slot, round)."""
    names = ("layer", "expert", "source_slot", "target_slot", "round")
    table = np.array(transfers, dtype=np.int64).reshape(-1, 5)
    columns = dict(zip(names, table.T, strict=True))
    return TransferSchedule(**{"topology": TOPOLOGY, "num_layers": 3, **columns, **changes})


def _busy() -> TransferSchedule:
    """Return a schedule with every kind of link: layer 0 in two rounds, layer 2 in one."""
    return _schedule(
        (0, 5, 0, 1, 0),  # rank 0 to itself
        (0, 1, 0, 2, 0),  # rank 0 to rank 1, on node 0
        (0, 2, 2, 4, 0),  # rank 1 to rank 2, between nodes
        (0, 3, 0, 3, 1),  # rank 0 to rank 1, on node 0
        (2, 3, 4, 6, 0),  # rank 2 to rank 3, on node 1
    )


def test_link_classes_follow_from_the_slots() -> None:
    """Two slots a rank and two ranks a node say which link a transfer crosses."""
    assert _busy().link_class.tolist() == [1, 2, 3, 2, 2]
    assert _busy().sender.tolist() == [0, 0, 1, 0, 2]
    assert _busy().receiver.tolist() == [0, 1, 2, 1, 3]


def test_link_classes_are_numbered_as_in_the_wire_contract() -> None:
    """A member can be sent as it is."""
    for link_class in LinkClass:
        assert plan_pb2.LinkClass.Name(link_class.value) == f"LINK_CLASS_{link_class.name}"


def test_totals_leave_copies_inside_a_rank_out() -> None:
    """Four of five transfers use a link; layer 1 has none."""
    schedule = _busy()

    assert schedule.num_transfers == 5
    assert [schedule.count(link_class) for link_class in LinkClass] == [1, 3, 1, 0]
    assert schedule.total_bytes(10) == 40
    assert schedule.num_rounds().tolist() == [2, 0, 1]


def test_a_round_lasts_as_long_as_its_slowest_transfer() -> None:
    """A slow round and a fast one in layer 0, a fast one in layer 2: 100 + 2 * 2 seconds."""
    speed = LinkSpeed(same_node_bytes_per_s=500, cross_node_bytes_per_s=10)

    assert _busy().estimated_s(1000, speed) == pytest.approx(104)
    assert _busy().estimated_s(45 * 10**9) == pytest.approx(0.9 + 2 * 0.1)


def test_nothing_to_do_costs_nothing() -> None:
    """A schedule may be empty, or do without links."""
    for schedule in (_schedule(), _schedule((0, 5, 0, 1, 0))):
        assert schedule.estimated_s(1000) == schedule.total_bytes(1000) == 0
        assert schedule.num_rounds().tolist() == [0, 0, 0]


def test_arrays_cannot_be_changed() -> None:
    """They are copies, and read-only."""
    layer = np.array([0])
    schedule = _schedule((0, 1, 0, 2, 0), layer=layer)
    layer[0] = 2

    assert schedule.layer.tolist() == [0]
    with pytest.raises(ValueError, match="read-only"):
        schedule.round[0] = 1


@pytest.mark.parametrize(
    ("transfers", "message"),
    [
        pytest.param(
            [(3, 1, 0, 2, 0)], "Expected layer in [0, 2], got 3 at [0].", id="layer"
        ),
        pytest.param(
            [(0, 1, 0, 2, 0), (0, 1, 8, 4, 0)],
            "Expected source_slot in [-1, 7], got 8 at [1].",
            id="source",
        ),
        pytest.param(
            [(0, 1, 0, -1, 0)], "Expected target_slot in [0, 7], got -1 at [0].", id="target"
        ),
        pytest.param([(0, -1, 0, 2, 0)], "Expected expert in [0, 7], got -1 at [0].", id="expert"),
        pytest.param([(0, 1, 0, 2, 1)], "Expected round in [0, 0], got 1 at [0].", id="round"),
        pytest.param(
            [(0, 1, 0, 2, 0), (0, 2, 4, 2, 1)],
            "Expected transfers to fill each slot at most once, got slot 2 twice.",
            id="slot filled twice",
        ),
        pytest.param(
            [(0, 1, 0, 2, 0), (0, 1, 1, 4, 0)],
            "Expected transfers to send from each rank in a round at most once, got rank 0 twice.",
            id="two sends",
        ),
        pytest.param(
            [(1, 1, 0, 2, 0), (1, 1, 4, 3, 0)],
            "Expected transfers to bring to each rank in a round at most once, got rank 1 twice.",
            id="two arrivals",
        ),
    ],
)  # fmt: skip
def test_an_impossible_schedule_is_refused(
    transfers: list[tuple[int, int, int, int, int]], message: str
) -> None:
    """What is out of range or happens twice is named."""
    with pytest.raises(InvalidInputError) as caught:
        _schedule(*transfers)

    assert str(caught.value) == message


def test_ranks_may_be_busy_in_other_rounds_layers_and_inside() -> None:
    """One rank sends in every round and layer, and copies twice inside itself meanwhile."""
    schedule = _schedule(
        (0, 1, 0, 0, 0), (0, 1, 0, 1, 0), (0, 1, 0, 2, 0), (0, 1, 0, 3, 1), (1, 1, 0, 2, 0)
    )

    assert schedule.num_rounds().tolist() == [2, 1, 0]


def test_columns_of_different_lengths_are_refused() -> None:
    """Each transfer has all five numbers."""
    with pytest.raises(InvalidInputError, match=r"Expected round of shape \[1\], got \[2\]"):
        _schedule((0, 1, 0, 2, 0), round=np.array([0, 0]))


def test_applying_copies_from_the_old_placement() -> None:
    """Slots 0 and 2 change their experts: both are read before either is written."""
    old = builders.placement((0, 1, 2, 3, 4, 5, 6, 7), num_ranks=4, num_nodes=2)
    schedule = _schedule((0, 2, 2, 0, 0), (0, 0, 0, 2, 0), num_layers=1)

    assert schedule.apply(old).phy2log.tolist() == [[2, 1, 0, 3, 4, 5, 6, 7]]


def test_applying_to_another_placement_is_refused() -> None:
    """A source has to hold the expert, and the layers have to be there."""
    old = builders.placement((0, 1, 2, 3, 4, 5, 6, 7), num_ranks=4, num_nodes=2)

    with pytest.raises(InvalidPlacementError) as caught:
        _schedule((0, 3, 2, 0, 0), num_layers=1).apply(old)
    assert str(caught.value) == ("Expected expert 3 in the source of transfer 0, got 2 at [0, 2].")
    with pytest.raises(InvalidPlacementError, match="old placement of 2 layers"):
        _schedule(num_layers=2).apply(old)


def test_storage_is_a_sender_of_its_own() -> None:
    """Two ranks read from storage in one round, in which rank 0 sends as well: 200 seconds."""
    schedule = _schedule(
        (0, 5, -1, 2, 0), (0, 6, -1, 4, 0), (0, 1, 0, 6, 0), (0, 7, -1, 3, 1), (0, 2, 0, 1, 0)
    )
    speed = LinkSpeed(same_node_bytes_per_s=500, storage_bytes_per_s=10)

    assert schedule.link_class.tolist() == [4, 4, 3, 4, 1]
    assert schedule.sender.tolist() == [-1, -1, 0, -1, 0]
    assert schedule.total_bytes(10) == 40
    assert schedule.num_rounds().tolist() == [2, 0, 0]
    assert schedule.estimated_s(1000, speed) == pytest.approx(200)


def test_a_rank_reads_from_storage_once_in_a_round() -> None:
    """Storage counts as a sender where it is received."""
    with pytest.raises(InvalidInputError, match="bring to each rank in a round at most once"):
        _schedule((0, 5, -1, 2, 0), (0, 6, -1, 3, 0))


@pytest.mark.parametrize(
    ("transfer", "message"),
    [
        ((0, 1, 2, 4, 0), "Expected transfers to read from active ranks, got rank 1."),
        ((0, 1, 4, 3, 0), "Expected transfers to write to active ranks, got rank 1."),
    ],
    ids=["read", "write"],
)
def test_masked_ranks_take_no_part(transfer: tuple[int, ...], message: str) -> None:
    """Nothing is read from a masked rank, and nothing is written to it."""
    topology = dataclasses.replace(TOPOLOGY, masked_ranks=(1,))

    with pytest.raises(InvalidInputError) as caught:
        _schedule(transfer, topology=topology)
    assert str(caught.value) == message


def test_applying_leaves_nothing_on_a_rank_that_is_lost() -> None:
    """Rank 3 is masked, and what it held is on other ranks, too."""
    old = builders.placement((0, 1, 2, 3, 4, 5, 6, 7), num_ranks=4, num_nodes=2)
    old = Placement(old.phy2log.remainder(6), 6, old.topology)
    topology = dataclasses.replace(TOPOLOGY, masked_ranks=(3,))

    placement = _schedule(topology=topology, num_layers=1).apply(old)
    assert placement.phy2log.tolist() == [[0, 1, 2, 3, 4, 5, -1, -1]]
    assert placement.topology == topology


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan")])
def test_links_have_a_speed(speed: float) -> None:
    """No speed may be zero, negative or not a number."""
    with pytest.raises(InvalidInputError, match="same_node_bytes_per_s to be positive"):
        LinkSpeed(same_node_bytes_per_s=speed)
    with pytest.raises(InvalidInputError, match="cross_node_bytes_per_s to be positive"):
        LinkSpeed(cross_node_bytes_per_s=speed)
    with pytest.raises(InvalidInputError, match="storage_bytes_per_s to be positive"):
        LinkSpeed(storage_bytes_per_s=speed)
