"""Every order is answered once, whatever else happens."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings, strategies as st

from expertplane_server.core import effects as fx, events as ev, orders
from expertplane_server.core.errors import ServiceError
from expertplane_server.core.spec import RolloutMode

from .. import builders
from .observed import observe
from .stored import Mishap, StoredConversation, coordinated, publish


SWAPPED = (2, 1, 0, 3)
SHADOW = builders.spec(rollout_mode=RolloutMode.SHADOW)


# Every order.

ACTIONS = st.sampled_from(
    [
        publish(SWAPPED),
        publish((0, 2, 1, 3)),
        publish((0, 0, 0, 0)),
        orders.RollBack(None),
        orders.RollBack(builders.plan((3, 1, 2, 0), version=1)),
        orders.Rebalance(),
        orders.Rebalance(),
        orders.Pause("x"),
        orders.Resume(),
        orders.Update(builders.spec(min_gain=0.2), "current"),
        orders.Update(coordinated(), "current"),
        orders.Update(builders.spec(topology=builders.topology(slots_per_rank=3)), "current"),
        orders.Update(SHADOW, "old"),
    ]
)
STEPS = st.one_of(
    ACTIONS,
    ACTIONS,
    st.sampled_from(
        [
            *("load", "solved", "failed", "finish", "nack"),
            ev.StreamEnded(stream=2, is_goodbye=False),
            builders.hello(2, "b", (1,)),
        ]
    ),
    st.tuples(
        st.sampled_from([fx.StorePlan, fx.StorePause, fx.StoreSpec, fx.AbortPlan, fx.ReadBack]),
        st.sampled_from(Mishap),
    ),
)


def _take(talk: StoredConversation, step: Any) -> None:
    """Take one step of a random story."""
    group = talk.group
    match step:
        case "load":
            talk.load()
        case "solved":
            slots = group.deployment.spec.topology.slots_per_rank
            talk.solved((0, 2, 1, 3, 0, 1)[: 2 * slots])
        case "failed":
            talk.tell(ev.SolveFailed(solve=group._cycle._num_solves, message="lost"))
        case "finish":
            talk.wait(1.0)
            if group.deployment.head:
                talk.finish()
        case ev.StreamEnded() | ev.Hello():
            talk.tell(step)
        case "nack":
            talk.tell(builders.nack(group.deployment.head, stream=2))
        case (effect, mishap):
            talk.mishaps[effect].append(mishap)
        case orders.Update(spec, "current"):
            talk.order(orders.Update(spec, group.deployment.etag))
        case _:
            talk.order(step)


@settings(max_examples=120, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=25))
def test_every_order_is_answered_once(story: list[Any]) -> None:
    """Whatever is asked in whatever order of a store that fails: each order is answered once."""
    talk = StoredConversation().join()
    for step in story:
        before, num_effects = observe(talk.group), len(talk.effects)
        _take(talk, step)
        effects = talk.effects[num_effects:]
        if isinstance(step, orders.Action) and len(effects) == 1 and _is_refusal(effects[0]):
            assert observe(talk.group) == before, "a refusal has changed something"
    talk.mishaps.clear()
    for _ in range(3):
        talk.wait(1.0)
    _take(talk, "solved")

    assert talk.answered == Counter(range(1, talk.asked + 1))


def _is_refusal(effect: fx.Effect) -> bool:
    return isinstance(effect, fx.Answer) and isinstance(effect.answer, ServiceError)
