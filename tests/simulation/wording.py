"""Messages, events and effects in few words, the same in every process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane_server.core import effects as fx, events as ev, orders
from expertplane_server.core.errors import ServiceError
from expertplane_server.core.plan import Decision, Plan, PlanRef
from expertplane_server.core.spec import Deployment


if TYPE_CHECKING:
    from collections.abc import Callable


def say(thing: Any) -> str:
    """Put anything that a trace holds in words."""
    worded = _WORDS.get(type(thing))
    if worded is not None:
        return worded(thing)
    match thing:
        case None | str() | int():
            return str(thing)
        case float():
            return f"{thing:.3f}"
        case tuple() | list():
            return "(" + ",".join(map(say, thing)) + ")"
        case ServiceError():
            # Not the message: it may name a tag that the store has made up.
            return f"{type(thing).__name__}({thing.reason})"
        case _:
            version = getattr(thing, "version", None)
            return (
                type(thing).__name__ if version is None else f"{type(thing).__name__} v{version}"
            )


def _deployment(it: Deployment) -> str:
    return (
        f"generation {it.generation} head {it.head} committed {it.committed}"
        f" {it.spec.rollout_mode}{' paused' * it.is_paused}"
    )


def _welcome(it: fx.Welcome) -> str:
    plan = f" {say(it.plan)}" if it.plan is not None else ""
    return f"Welcome {it.verdict}{plan}{' elected' * it.is_elected_reporter}"


def _hello(it: ev.Hello) -> str:
    staged = f" staged {say(it.staged)}" if it.staged is not None else ""
    return (
        f"Hello {it.participant} ({it.incarnation}) on {it.stream} ranks {say(it.ranks)}"
        f" has {say(it.applied)}{staged} seen v{it.highest_version} epoch {it.highest_epoch}"
    )


def _report(it: ev.LoadReport) -> str:
    return (
        f"LoadReport {it.sequence} on {it.stream} v{it.plan_version} step {it.first_step}"
        f" {it.counts.shape[0]} samples"
    )


def _nack(it: ev.Nack) -> str:
    kind = "transient" if it.is_transient else "permanent"
    return f"Nack {kind} v{it.version} {it.reason} on {it.stream}"


def _order(it: ev.Order) -> str:
    request = f" request {it.request.id}" if it.request is not None else ""
    return f"Order {it.order} {say(it.action)}{request}"


_WORDS: dict[type, Callable[[Any], str]] = {
    Plan: lambda it: f"v{it.version}:{it.digest[:4]}:{it.state}",
    PlanRef: lambda it: f"v{it.version}:{it.digest[:4]}",
    Deployment: _deployment,
    Decision: lambda it: f"#{it.sequence} {it.reason} v{it.plan_version}",
    np.ndarray: lambda it: str(it.tolist()).replace(" ", ""),
    fx.Welcome: _welcome,
    fx.Stage: lambda it: f"Stage {say(it.plan)}",
    fx.Commit: lambda it: f"Commit {say(it.plan)}{' staged' * it.is_staged}",
    fx.Refused: lambda it: f"Refused {it.sequence} {say(it.error)}",
    fx.ReportAck: lambda it: f"ReportAck {it.sequence}",
    fx.PlannerHeartbeat: lambda it: f"Heartbeat {it.head} {it.committed}",
    fx.Solve: lambda it: f"Solve #{it.solve} of {len(it.samples)}{' again' * (not it.is_new)}",
    fx.StorePlan: lambda it: f"StorePlan {it.state} {it.draft.reason} on head {it.expected_head}",
    fx.RaiseCounters: lambda it: f"RaiseCounters v{it.version} epoch {it.epoch}",
    fx.Record: lambda it: f"Record {say(it.decision)}",
    ev.Hello: _hello,
    ev.LoadReport: _report,
    ev.Ack: lambda it: f"Ack {it.phase} {say(it.ref)} on {it.stream}",
    ev.Nack: _nack,
    ev.Heartbeat: lambda it: f"Heartbeat {say(it.applied)} on {it.stream}",
    ev.StreamEnded: lambda it: f"StreamEnded {it.stream}{' goodbye' * it.is_goodbye}",
    ev.Order: _order,
    ev.CountersRaised: lambda it: f"CountersRaised head {it.head} epoch {it.epoch}",
    ev.StoreFailed: lambda it: (
        f"StoreFailed {'refused' if it.is_refusal else 'unknown'} {say(it.error)}"
    ),
    orders.RollBack: lambda it: f"RollBack to {say(it.plan)}",
}
