"""A plan in parts, each within the spare buffers of the members."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from expertplane_server.core import effects as fx, orders
from expertplane_server.core.chain import buffered_slots, cut, with_layers
from expertplane_server.core.members import Membership
from expertplane_server.core.parameters import MigrationParameters
from expertplane_server.core.placements import check_placement
from expertplane_server.core.plan import Evaluation, PlanState, Reason

from .. import builders
from .stored import Mishap, StoredConversation, coordinated, publish, rollout


EXPERT_BYTES = 10
TWO_LAYERS = ((0, 2, 1, 3), (3, 1, 2, 0))
"""Every rank fetches one expert in either layer."""


def needed(
    before: np.ndarray[Any, Any], after: np.ndarray[Any, Any], num_ranks: int
) -> Counter[int]:
    """Return how many experts each rank buffers over all layers, the slow way.

    What goes into an empty slot waits for nothing.
    """
    fetched: Counter[int] = Counter()
    for old, new in zip(before, after, strict=True):
        for rank, (had, has) in enumerate(
            zip(np.split(old, num_ranks), np.split(new, num_ranks), strict=True)
        ):
            gets = Counter(has[has >= 0].tolist()) - Counter(had[had >= 0].tolist())
            fetched[rank] += max(0, gets.total() - int((had < 0).sum()))
    return fetched


def ways(
    in_force: np.ndarray[Any, Any], target: np.ndarray[Any, Any], spec: Any, max_slots: int | None
) -> list[np.ndarray[Any, Any]] | None:
    """Return the placements that lead from one to another, one for each part."""
    parts = cut(in_force, target, spec, max_slots)
    if parts is None:
        return None
    maps = [in_force]
    for layers in parts:
        maps.append(with_layers(maps[-1], target, layers))
    return maps[1:]


@st.composite
def moves(draw: st.DrawFn) -> tuple[Any, np.ndarray[Any, Any], np.ndarray[Any, Any], int]:
    """Return a spec, a placement in force that may have lost experts, a target, and a limit."""
    num_layers, num_ranks = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    slots_per_rank, num_experts = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    num_slots = num_ranks * slots_per_rank
    num_experts = min(num_experts, num_slots)
    topology = builders.topology(ranks_per_node=num_ranks, slots_per_rank=slots_per_rank)
    spec = builders.spec(
        layer_ids=tuple(range(num_layers)), num_logical_experts=num_experts, topology=topology
    )
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)

    def placement() -> np.ndarray[Any, Any]:
        rows = [
            rng.permutation(np.arange(num_slots, dtype=np.int32) % num_experts)
            for _ in range(num_layers)
        ]
        return np.stack(rows)

    in_force, target = placement(), placement()
    keep = rng.random(num_layers) < 0.3
    target[keep] = in_force[keep]
    if draw(st.booleans()):
        for layer in np.flatnonzero(rng.random(num_layers) < 0.4):
            rest = in_force[layer, slots_per_rank:]
            if len(set(rest.tolist())) < num_experts:
                in_force[layer, :slots_per_rank] = -1
    return spec, in_force, target, draw(st.integers(0, 8))


@settings(max_examples=300, deadline=None)
@given(moves())
def test_parts(moved: Any) -> None:
    """Every part is a placement that no rank fetches too much for, and the last is the target.

    Where it cannot be done, a layer, or what is to be made whole again, is too much by itself.
    """
    spec, in_force, target, max_slots = moved
    num_ranks = spec.topology.num_ranks
    parts = ways(in_force, target, spec, max_slots)
    experts = set(range(spec.num_logical_experts))
    lost = ~np.array([experts <= set(row) and -1 not in row for row in in_force])
    if parts is None:
        at_once = [np.flatnonzero(lost), *np.flatnonzero(~lost)[:, None]]
        most = [
            max(needed(in_force[rows], target[rows], num_ranks).values(), default=0)
            for rows in at_once
        ]
        assert max(most) > max_slots
        return
    assert np.array_equal(parts[-1], target)
    before = in_force
    for part in parts:
        check_placement(part, spec, "part")
        assert max(needed(before, part, num_ranks).values()) <= max_slots
        assert not np.array_equal(part, before) or len(parts) == 1
        before = part
    pairs = zip([in_force, *parts], parts[1:], strict=False)
    for before_last, after in pairs:  # two parts in a row do not fit together
        assert max(needed(before_last, after, num_ranks).values()) > max_slots


def test_rank_that_is_back() -> None:
    """The empty slots of a rank that is back are filled first, in all layers, without buffers."""
    wanted = builders.spec(layer_ids=(0, 1), topology=builders.topology(slots_per_rank=4))
    before = np.array([[0, 1, 2, 3, -1, -1, -1, -1]] * 2, dtype=np.int32)
    after = np.array([[0, 1, 2, 3, 0, 1, 2, 3]] * 2, dtype=np.int32)
    parts = ways(before, after, wanted, 1)

    assert parts is not None
    assert [part.tolist() for part in parts] == [after.tolist()]


def test_no_limit() -> None:
    """Members without a limit take any plan at once."""
    spec = builders.spec()
    target = np.array([[3, 2, 1, 0]], dtype=np.int32)
    parts = ways(np.array([[0, 1, 2, 3]], dtype=np.int32), target, spec, None)

    assert parts is not None
    assert [part.tolist() for part in parts] == [target.tolist()]


@pytest.mark.parametrize(
    ("limits", "size", "slots"),
    [
        ((), 10, None),
        ((0, 0), 10, None),
        ((25, 0), 10, 2),
        ((25, 39), 10, 2),
        ((5, 39), 10, 0),
        ((25, 39), 0, None),
    ],
)
def test_buffered_slots(limits: tuple[int, ...], size: int, slots: int | None) -> None:
    """The smallest buffer counts; 0 is no limit, and experts of unknown size have none."""
    members = Membership()
    for rank, limit in enumerate(limits):
        hello = builders.hello(rank, "ab"[rank], (rank,), max_staged_bytes=limit)
        members.admit(hello, 0.0)
    spec = builders.spec(migration=MigrationParameters(bytes_per_expert=size))

    assert buffered_slots(members, spec) == slots


# As a conversation.


def talk_of_two(max_staged_bytes: int = EXPERT_BYTES, **changes: Any) -> StoredConversation:
    """Return two members with room for one expert on each rank, two layers to place."""
    migration = MigrationParameters(bytes_per_expert=EXPERT_BYTES)
    talk = StoredConversation(coordinated(layer_ids=(3, 4), migration=migration, **changes))
    return talk.join(max_staged_bytes=max_staged_bytes)


def load(talk: StoredConversation, *layers: tuple[float, ...], step: int) -> list[str]:
    """Let both members report a step of two layers; return what follows."""
    lines: list[str] = []
    for stream in (1, 2):
        counts = np.array([layers], dtype=np.float64)
        report = replace(builders.report(stream=stream, first_step=step), counts=counts)
        lines = talk.tell(report)
    return lines


def test_publication_in_parts() -> None:
    """Each part is a version of its own, which follows when the one before is applied by all."""
    talk = talk_of_two()

    assert talk.order(publish(*TWO_LAYERS, comment="trial")) == [
        "store on v0 staging",
        "record PUBLISHED_BY_OPERATOR v1",
        "answer 1: v1",
        "1 < stage v1 within 600 s",
        "2 < stage v1 within 600 s",
    ]
    assert talk.plan(1).phy2log.tolist() == [[0, 2, 1, 3], [0, 1, 2, 3]]
    assert talk.plan(1).draft.comment == "Part 1 of 2, for the buffers of the members. trial"
    talk.staged(1)
    talk.staged(2)
    assert talk.order(publish(*TWO_LAYERS)) == ["answer 2: ROLLOUT_IN_FLIGHT"]
    assert talk.applied(1) == []
    assert talk.applied(2) == [
        "applied v1",
        "store on v1 staging",
        "record PUBLISHED_BY_OPERATOR v2",
        "1 < stage v2 within 600 s",
        "2 < stage v2 within 600 s",
    ]
    talk.finish()
    assert talk.plan(2).state is PlanState.APPLIED
    assert talk.group.in_force.tolist() == [list(row) for row in TWO_LAYERS]
    assert talk.plan(2).draft.comment.startswith("Part 2 of 2")


def test_part_is_described_when_its_turn_comes() -> None:
    """Of a plan in a hundred parts one is described at a time, on the load of that time."""
    talk = talk_of_two()
    talk.order(publish(*TWO_LAYERS))
    load(talk, (1, 2, 3, 4), (1, 2, 3, 4), step=0)
    talk.finish()
    talk.finish()

    first, second = (talk.plan(version).draft.solution for version in (1, 2))
    assert first.evaluation is None
    assert second.evaluation is Evaluation.IN_SAMPLE
    assert second.moved_slots == 2


def test_no_other_plan_between_parts() -> None:
    """Newer loads do not come between the parts of a plan."""
    talk = talk_of_two(rollout=rollout(hold_down_s=0.0))
    talk.order(publish(*TWO_LAYERS))
    talk.staged(1)
    talk.staged(2)
    talk.applied(1)

    lines = load(talk, (1, 2, 3, 4), (1, 2, 3, 4), step=0)
    assert lines[-2] == "record SKIPPED_ROLLOUT_IN_FLIGHT"


@pytest.mark.parametrize("is_first", [True, False])
def test_abort_of_a_part(is_first: bool) -> None:
    """When a part is given up, what follows is dropped; what was applied of it stays in force."""
    talk = talk_of_two()
    talk.order(publish(*TWO_LAYERS))
    if not is_first:
        talk.finish()
    version = talk.group.staging_version

    assert "record FAILED_ROLLOUT v" + str(version) in talk.tell(builders.nack(version, stream=2))
    first = [0, 1, 2, 3] if is_first else [0, 2, 1, 3]
    assert talk.group.in_force.tolist() == [first, [0, 1, 2, 3]]
    talk.wait(0.25)
    assert talk.group.staging_version == 0
    assert talk.order(publish((2, 1, 0, 3), (0, 1, 2, 3)))[2].startswith("answer 2: v")


def test_pause_between_parts() -> None:
    """A pause ends a chain between two parts, and the journal says so."""
    talk = talk_of_two()
    talk.order(publish(*TWO_LAYERS))
    talk.order(orders.Pause("night"))

    talk.finish()
    latest = talk.group.journal.latest
    assert latest is not None
    assert latest.reason is Reason.SKIPPED_PAUSED
    assert "Part 2 of 2" in latest.message
    assert talk.group.deployment.head == 1


@pytest.mark.parametrize("mishap", list(Mishap))
def test_part_that_may_not_have_been_stored(mishap: Mishap) -> None:
    """A part that was stored goes on its way; one that was not ends the chain."""
    talk = talk_of_two()
    talk.order(publish(*TWO_LAYERS))
    talk.mishaps[fx.StorePlan] = [mishap]
    talk.finish()

    assert talk.group.staging_version == (2 if mishap is Mishap.DONE else 0)
    talk.finish()
    rest = [3, 1, 2, 0] if mishap is Mishap.DONE else [0, 1, 2, 3]
    assert talk.group.in_force.tolist() == [[0, 2, 1, 3], rest]


def test_parts_are_judged_together() -> None:
    """A plan in parts is judged against what was before the first, and all of it is taken back."""
    talk = talk_of_two()
    load(talk, (1, 2, 3, 4), (1, 2, 3, 4), step=0)
    talk.solved(*TWO_LAYERS)
    talk.finish()
    talk.finish()
    assert talk.group.in_force.tolist() == [list(row) for row in TWO_LAYERS]

    lines = load(talk, (9, 0, 9, 0), (9, 0, 0, 9), step=9)
    assert lines[2:5] == [
        "regressed v2 by 0.50",
        "store on v2 staging",
        "record ROLLED_BACK_REGRESSION v3",
    ]
    talk.finish()
    talk.finish()
    assert talk.group.in_force.tolist() == [[0, 1, 2, 3], [0, 1, 2, 3]]
    assert talk.group.deployment.head == 4


@pytest.mark.parametrize(("room", "head"), [(EXPERT_BYTES, 2), (2 * EXPERT_BYTES, 1), (0, 1)])
def test_as_few_parts_as_there_is_room_for(room: int, head: int) -> None:
    """Layers go together as far as the buffers reach."""
    talk = talk_of_two(room)
    talk.order(publish(*TWO_LAYERS))
    talk.finish()
    talk.finish()

    assert talk.group.deployment.head == head


def test_layer_that_is_too_much() -> None:
    """What does not fit layer by layer is refused, and not tried."""
    talk = talk_of_two()

    assert talk.order(publish((2, 3, 0, 1), (0, 1, 2, 3))) == ["answer 1: BUFFERS_TOO_SMALL"]
    assert talk.group.deployment.head == 0


def test_buffers_without_room() -> None:
    """Members without room for a single expert are not planned for."""
    talk = talk_of_two(EXPERT_BYTES - 1)

    lines = load(talk, (1, 2, 3, 4), (1, 2, 3, 4), step=0)
    assert lines[-2] == "record SKIPPED_BUFFERS_TOO_SMALL"


@pytest.mark.parametrize(
    ("room", "most"), [(0, None), (EXPERT_BYTES, 1), (2 * EXPERT_BYTES, None)]
)
def test_solver_is_told_of_the_room(room: int, most: int | None) -> None:
    """The solve is bounded by what a layer may move so that it surely fits the buffers."""
    talk = talk_of_two(room)
    load(talk, (1, 2, 3, 4), (1, 2, 3, 4), step=0)
    (solve,) = [effect for effect in talk.effects if isinstance(effect, fx.Solve)]

    assert solve.max_moved_slots == most
