"""Conversations with the core, written down: one line per effect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertplane_server.core import effects as fx, events as ev
from expertplane_server.core.plan import Decision, Plan, PlanState
from expertplane_server.core.spec import Deployment

from .. import builders


if TYPE_CHECKING:
    from expertplane_server.core.errors import ServiceError
    from expertplane_server.core.group import Group


SILENT = (fx.Reached, fx.Observed)
"""Effects that are measured and move nothing."""


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
        return [line(effect) for effect in effects if not isinstance(effect, SILENT)]

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

    def stage(self, plan: Plan) -> list[str]:
        """Lead the group to a staging plan; return what follows on the store's answer."""
        return self.publish(plan.with_state(PlanState.STAGING))


def line(effect: fx.Effect) -> str:
    """Write one effect down."""
    match effect:
        case fx.Send(stream, message):
            return f"{stream} < {_message(message)}"
        case fx.EndStream(stream, error):
            return f"{stream} ends: {error.reason}"
        case fx.Answer(order, answer):
            return f"answer {order}: {_answer(answer)}"
        case fx.Regressed(version, loss):
            return f"regressed v{version} by {loss:.2f}"
        case fx.Announce(plan):
            return f"announce v{plan.version}" if plan is not None else "announce none"
        case fx.Record(decision):
            published = f" v{decision.plan_version}" if decision.plan_version else ""
            return f"record {decision.reason}{published}"
        case fx.CountSample(fate):
            return f"sample {fate}"
        case _:
            return _wanted(effect)


def _wanted(effect: fx.Effect) -> str:
    """Write down what is wanted of the solver or the store."""
    match effect:
        case fx.RaiseCounters(stream, version, epoch):
            return f"raise for {stream}: version {version}, epoch {epoch}"
        case fx.Solve() | fx.Learn():
            verb = f"solve {effect.solve} of" if isinstance(effect, fx.Solve) else "learn"
            return f"{verb} {len(effect.samples)} samples"
        case fx.StorePlan(draft=draft, state=state):
            return f"store on v{draft.parent}{' staging' * (state is PlanState.STAGING)}"
        case fx.CommitPlan(version) | fx.AbortPlan(version):
            return f"{'commit' if isinstance(effect, fx.CommitPlan) else 'abort'} v{version}"
        case fx.StorePause(is_paused=is_paused):
            return f"store {'pause' if is_paused else 'resume'}"
        case fx.StoreSpec(is_new_generation=is_new):
            return f"store spec{' of a new generation' * is_new}"
        case fx.StoreParked(parked):
            return f"park {parked.participant}"
        case fx.StoreApplied(version):
            return f"applied v{version}"
        case fx.StoreSuperseded() | fx.ReadBack():
            return "supersede" if isinstance(effect, fx.StoreSuperseded) else "read back"
        case _:
            raise AssertionError(f"no line for {type(effect).__name__}")


def _answer(answer: Plan | Decision | Deployment | ServiceError) -> str:
    match answer:
        case Plan():
            return f"v{answer.version}"
        case Decision():
            return answer.reason
        case Deployment():
            return f"generation {answer.generation}{' paused' * answer.is_paused}"
        case _:
            return f"{answer.reason} {answer.field}".rstrip()


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
        case fx.Stage(plan, deadline_s):
            return f"stage v{plan.version} within {deadline_s:g} s"
        case fx.Commit(plan, is_staged):
            return f"commit v{plan.version}{' as staged' * is_staged}"
        case fx.Abort(version):
            return f"abort v{version}"
        case fx.Flow(report_interval_s):
            return f"flow {report_interval_s:g} s"
        case fx.PlannerHeartbeat():
            return f"heartbeat head {message.head} committed {message.committed}"
        case _:
            return "drain"
