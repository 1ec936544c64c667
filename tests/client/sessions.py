"""Sessions in the states that tests start from, and what they want done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertplane_client.effects import AdoptPlan, Effect, Send
from expertplane_client.session import Session

from . import builders


if TYPE_CHECKING:
    from typing import Any

    from expertplane.v1 import placement_service_pb2 as placement_pb2


def session(**changes: Any) -> Session:
    """Returns a session whose stream is open, in epoch 1."""
    opened = Session(builders.identity(**changes))
    opened.hello()
    opened.on_response(builders.response(welcome=builders.welcome()))
    return opened


def serving(version: int = 3, *, epoch: int = 1) -> Session:
    """Returns a session whose ranks serve with a plan since step 40."""
    opened = session()
    opened.on_response(
        builders.response(epoch=epoch, nonce=2, commit=builders.commit(version, epoch=epoch))
    )
    opened.applied(builders.plan(version, epoch=epoch), 40)
    return opened


def adopted(effects: tuple[Effect, ...]) -> list[int]:
    """Returns the versions that the ranks are to switch to."""
    return [effect.plan.version for effect in effects if isinstance(effect, AdoptPlan)]


def nack(effects: tuple[Effect, ...]) -> placement_pb2.Nack:
    """Returns the one Nack among the effects, which must adopt nothing."""
    assert adopted(effects) == []
    (sent,) = [effect.request for effect in effects if isinstance(effect, Send)]
    assert sent.WhichOneof("message") == "nack"
    return sent.nack


def ack(effects: tuple[Effect, ...]) -> placement_pb2.Ack:
    """Returns the one Ack among the effects, which must adopt nothing."""
    assert adopted(effects) == []
    (sent,) = [effect.request for effect in effects if isinstance(effect, Send)]
    assert sent.WhichOneof("message") == "ack"
    return sent.ack
