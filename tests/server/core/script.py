"""Conversations with the core, written down: one line per effect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertplane_server.core import effects as fx, events as ev

from .. import builders


if TYPE_CHECKING:
    from expertplane_server.core.group import Group
    from expertplane_server.core.plan import Plan


class Conversation:
    """A group and the clock it lives by."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.now_s = 0.0

    def tell(self, *events: ev.Event) -> list[str]:
        """Hand events to the group, and return the lines of the last one's effects."""
        effects: list[fx.Effect] = []
        for event in events:
            effects = self.group.handle(event, builders.at(self.now_s))
        return [line(effect) for effect in effects]

    def wait(self, span_s: float) -> list[str]:
        """Let time pass, and return the lines of the tick that ends it."""
        self.now_s += span_s
        return self.tell(ev.Tick())

    def publish(self, plan: Plan) -> list[str]:
        """Lead the group from its members' reports to the plan; the store agrees."""
        number = self.group._cycle._num_solves + 1
        for member in list(self.group.members):
            self.tell(builders.report(stream=member.hello.stream, first_step=1000 + number))
        self.tell(ev.Solved(solve=number, solution=plan.draft.solution))
        return self.tell(ev.Stored(plan=plan))


def line(effect: fx.Effect) -> str:
    """Write one effect down."""
    match effect:
        case fx.Send(stream, message):
            return f"{stream} < {_message(message)}"
        case fx.EndStream(stream, error):
            return f"{stream} ends: {error.reason}"
        case fx.RaiseCounters(stream, version, epoch):
            return f"raise for {stream}: version {version}, epoch {epoch}"
        case fx.Solve() | fx.Learn():
            verb = f"solve {effect.solve} of" if isinstance(effect, fx.Solve) else "learn"
            return f"{verb} {len(effect.samples)} samples"
        case fx.StorePlan(draft):
            return f"store on v{draft.parent}"
        case fx.StoreApplied(version):
            return f"applied v{version}"
        case fx.Announce(plan):
            return f"announce v{plan.version}"
        case fx.Record(decision):
            published = f" v{decision.plan_version}" if decision.plan_version else ""
            return f"record {decision.reason}{published}"
        case fx.CountSample(fate):
            return f"sample {fate}"


def _message(message: fx.Message) -> str:
    match message:
        case fx.Welcome():
            plan = f" v{message.plan.version}" if message.plan else ""
            return f"welcome {message.verdict}{plan}{' elected' * message.is_elected_reporter}"
        case fx.ReportAck(sequence):
            return f"ack {sequence}"
        case fx.Refused():
            error = message.error
            return f"refused {message.sequence}: {error.reason} {error.field}".rstrip()
        case fx.Commit(plan):
            return f"commit v{plan.version}"
        case fx.PlannerHeartbeat():
            return f"heartbeat head {message.head} committed {message.committed}"
        case fx.Drain():
            return "drain"
