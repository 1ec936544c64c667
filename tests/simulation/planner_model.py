"""A planner process: the real core, and a driver that carries its effects out one by one."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from expertplane_server.core import effects as fx, events as ev
from expertplane_server.core.errors import ConflictError, ServiceError
from expertplane_server.core.group import Group
from expertplane_server.store.base import StoreError

from . import solver_model
from .loop import ViolationError
from .scenario import NAME
from .store_model import NUM_PLANS


if TYPE_CHECKING:
    from .network import Stream
    from .world import World


TICK_S = 0.5
WALL_AT_START_S = 1_700_000_000.0


class CrashError(Exception):
    """The process dies here."""


class Planner:
    """One life of a planner, from its start to its crash.

    Attributes:
        number: counts the planners of a world.
        group: the real core.
        is_serving: it has started, and takes new streams.
        is_alive: it has not crashed.
        parked: (incarnation, digest) that it must know not to send.
        samples_seen: (generation, number) of the samples that it has handed on.
        hung_solves: numbers of the solves that nobody will answer.
    """

    def __init__(self, world: World, number: int) -> None:
        self.number = number
        self.name = f"plan-{number}"
        self.group: Group
        self.is_alive = True
        self.is_serving = False
        self.is_paused = False
        self.parked: set[tuple[str, str]] = set()
        self.samples_seen: set[tuple[int, int]] = set()
        self._world = world
        self._streams: dict[int, Stream] = {}
        self._waiting: deque[ev.Event] = deque()
        # Effects left until the process dies; None while nothing is to kill it.
        self._fuse: int | None = None
        self.hung_solves: list[int] = []

    # Life and death.

    def start(self) -> None:
        """Open the store and begin; again in a while where the store does not answer."""
        world = self._world
        if not self.is_alive:
            return
        try:
            epoch = world.disk.open()
            recovered = world.disk.call("recover", NAME, num_plans=NUM_PLANS)
        except StoreError:
            world.loop.after(1.0, self.start)
            return
        world.loop.note(self.name, "starts in epoch", epoch, recovered.deployment)
        self.parked = world.disk.parked
        self.group = Group(recovered, epoch=epoch, heartbeat_interval_s=world.heartbeat_s)
        self._guarded(lambda: self._carry_out_all(self.group.begin(self._now())))
        self.is_serving = self.is_alive
        world.loop.after(TICK_S, self._tick)

    def light_fuse(self, num_effects: int) -> None:
        """Have the process die after so many more effects."""
        self._fuse = num_effects

    def quench_fuse(self) -> None:
        """Have the process live on."""
        self._fuse = None

    def die(self) -> None:
        """Lose everything but what is on disk."""
        if self.is_alive:
            self.is_alive = self.is_serving = False
            self._world.loop.note(self.name, "dies")
            self._world.network.drop_all(self)
            self._world.planner_died(self)

    def pause(self) -> None:
        """Stand still; what arrives waits."""
        self._world.loop.note(self.name, "stands still")
        self.is_paused = True

    def resume(self) -> None:
        """Go on with what has waited."""
        if not self.is_alive or not self.is_paused:
            return
        self._world.loop.note(self.name, "goes on")
        self.is_paused = False
        while self._waiting and self.is_alive:
            self._handle_guarded(self._waiting.popleft())

    def fail_hung_solves(self) -> None:
        """Have the watchdog replace a solver that does not answer."""
        for solve in self.hung_solves:
            self.submit(ev.SolveFailed(solve=solve, message="the solver was replaced"))
        self.hung_solves.clear()

    # What reaches it.

    def attach(self, stream: Stream) -> None:
        """Take a new stream; its Hello is on the way."""
        self._streams[stream.number] = stream

    def receive(self, stream: Stream, event: ev.Event) -> None:
        """Take a message of a participant."""
        if stream.number in self._streams:
            self.submit(event)

    def stream_ended(self, stream: Stream, is_goodbye: bool) -> None:
        """Hear that a stream is over."""
        if self._streams.pop(stream.number, None) is not None:
            self.submit(ev.StreamEnded(stream=stream.number, is_goodbye=is_goodbye))

    def stream(self, number: int) -> Stream | None:
        """Return a stream that is not over yet, as far as this planner knows."""
        return self._streams.get(number)

    def submit(self, event: ev.Event) -> None:
        """Handle an event, now or when its turn comes."""
        if not self.is_alive:
            return
        if self.is_paused:
            self._waiting.append(event)
        else:
            self._handle_guarded(event)

    def _tick(self) -> None:
        if not self.is_alive:
            return
        if not self.is_paused:
            self.submit(ev.Tick())
        self._world.loop.after(TICK_S, self._tick)

    def _now(self) -> ev.Instant:
        world = self._world
        now_s = world.loop.now_s
        return ev.Instant(
            monotonic_s=now_s + world.monotonic_ahead_s + 100.0 * self.number,
            wall_s=WALL_AT_START_S + now_s + world.wall_ahead_s,
        )

    # The driver.

    def _handle_guarded(self, event: ev.Event) -> None:
        self._guarded(lambda: self._take(event))

    def _guarded(self, work: Any) -> None:
        try:
            work()
        except CrashError:
            self.die()
        except (ViolationError, ServiceError):
            raise
        except Exception as error:
            raise ViolationError("core", f"The core raised {error!r}.") from error

    def _take(self, event: ev.Event) -> None:
        """Handle an event from outside; a request that was answered before never gets there."""
        if isinstance(event, ev.Order) and event.request is not None:
            answer = self._answered(event)
            if answer is not None:
                self._carry_out(fx.Answer(event.order, answer))
                return
        self._handle(event)

    def _answered(self, order: ev.Order) -> Any:
        """Return the first answer to a request that has come before; None for a new one."""
        assert order.request is not None
        disk = self._world.disk
        try:
            answered = disk.call("answered", order.request.id)
            if answered is None:
                return None
            if answered.call != order.request.call:
                return ConflictError("Expected a request id of its own.")
            if order.request.call in ("publish", "rollback"):
                return disk.call("plan", NAME, answered.answer)
            if order.request.call == "rebalance":
                return disk.call("decision", NAME, answered.answer)
            return disk.call("recover", NAME, num_plans=1).deployment
        except ServiceError as error:
            return error

    def _handle(self, event: ev.Event) -> None:
        world = self._world
        if not isinstance(event, ev.Tick | ev.Heartbeat):
            world.loop.note(self.name, "<", event)
        before = world.watch.before(self, event)
        effects = self.group.handle(event, self._now())
        world.watch.after(self, event, effects, before)
        self._carry_out_all(effects)

    def _carry_out_all(self, effects: list[fx.Effect]) -> None:
        for effect in effects:
            self._boundary()
            self._carry_out(effect)

    def _boundary(self) -> None:
        """Die here if this is where the fuse ends."""
        if self._fuse is not None:
            self._fuse -= 1
            if self._fuse < 0:
                raise CrashError

    def _carry_out(self, effect: fx.Effect) -> None:
        world = self._world
        match effect:
            case fx.Send(stream, message):
                self._send(stream, message)
            case fx.EndStream(stream, error):
                world.loop.note(self.name, "ends", stream, error)
                if stream in self._streams:
                    world.network.end(self._streams[stream], error)
            case fx.Solve():
                world.loop.note(self.name, effect)
                world.watch.samples(self, effect.samples, is_new=effect.is_new)
                solver_model.solve(world, self, effect)
            case fx.Learn(samples):
                world.watch.samples(self, samples, is_new=True)
            case fx.Announce(plan):
                world.watch.announced(plan)
            case fx.Answer(order, answer):
                world.loop.note(self.name, "answers", order, answer)
                world.operators.answered(self, order, answer)
            case fx.Reached() | fx.Observed() | fx.Regressed() | fx.CountSample():
                pass
            case fx.Record(is_stored=True):
                world.loop.note(self.name, effect)
            case _:
                world.loop.note(self.name, effect)
                self._persist(effect)

    def _send(self, number: int, message: fx.Message) -> None:
        stream = self._streams.get(number)
        if stream is None or not stream.is_open:
            return
        world, epoch = self._world, self.group.epoch
        if not isinstance(message, fx.PlannerHeartbeat | fx.ReportAck):
            world.loop.note(self.name, f"> {stream.process.incarnation}", message)
        world.watch.sends(self, stream, message)
        world.network.down(stream, epoch, message)

    # Persistence: the answer comes back before anything else happens.

    def _persist(self, effect: fx.Effect) -> None:
        match effect:
            case fx.StoreApplied() | fx.Record() | fx.StoreParked() | fx.StoreSuperseded():
                try:
                    self._store(effect)
                except ServiceError:
                    return
            case fx.RaiseCounters():
                self._raise_counters(effect)
            case fx.ReadBack():
                try:
                    recovered = self._world.disk.call("recover", NAME, num_plans=NUM_PLANS)
                except ServiceError:
                    recovered = None
                self._boundary()
                self._handle(ev.ReadBack(recovered))
            case _:
                self._answer_store(effect)

    def _answer_store(self, effect: fx.Effect) -> None:
        answer: ev.Event
        try:
            done = self._store(effect)
        except StoreError as error:
            answer = ev.StoreFailed(error=error)
        except ServiceError as error:
            answer = ev.StoreFailed(error=error, is_refusal=True)
        else:
            match effect:
                case fx.StorePlan():
                    answer = ev.Stored(plan=done)
                case fx.CommitPlan(version):
                    answer = ev.PlanCommitted(version=version)
                case fx.AbortPlan(version):
                    answer = ev.PlanAborted(version=version)
                case _:
                    answer = ev.DeploymentStored(deployment=done)
        self._boundary()
        self._handle(answer)

    def _raise_counters(self, effect: fx.RaiseCounters) -> None:
        if self is not self._world.planner:
            # This call is not fenced: an owner that was taken over from has lost its lock, and
            # with it the store.
            self._not_raised(effect, StoreError("The store has gone."))
            return
        try:
            head, epoch = self._world.disk.call(
                "raise_counters", NAME, version=effect.version, epoch=effect.epoch
            )
        except ServiceError as error:
            self._not_raised(effect, error)
            return
        self._boundary()
        self._handle(ev.CountersRaised(head=head, epoch=epoch))

    def _not_raised(self, effect: fx.RaiseCounters, error: ServiceError) -> None:
        if effect.stream is not None:
            self._carry_out(fx.EndStream(effect.stream, error))
        self._handle(ev.RaiseFailed())

    def _store(self, effect: fx.Effect) -> Any:
        """Carry a transaction out in this planner's term."""
        call = self._world.disk.call
        fence: dict[str, Any] = {"epoch": self.group.epoch}
        moment: dict[str, Any] = {**fence, "now_s": self._now().wall_s}
        match effect:
            case fx.StorePlan():
                return call(
                    "publish",
                    effect.draft,
                    state=effect.state,
                    decision=effect.decision,
                    expected_head=effect.expected_head,
                    request=effect.request,
                    **moment,
                )
            case fx.CommitPlan(version):
                return call("commit", NAME, version, **fence)
            case fx.AbortPlan(version, decision):
                return call("abort", NAME, version, decision=decision, **moment)
            case fx.StoreApplied(version):
                return call("mark_applied", NAME, version, **fence)
            case fx.Record(decision, request=request):
                return call("record", NAME, decision, request=request, **moment)
            case fx.StoreParked(parked):
                return call("park", NAME, parked, **fence)
            case fx.StoreSuperseded(incarnation):
                return call("supersede", NAME, incarnation, **fence)
            case fx.StorePause(is_paused=is_paused, comment=comment, request=request):
                return call(
                    "set_paused",
                    NAME,
                    is_paused=is_paused,
                    comment=comment,
                    request=request,
                    **moment,
                )
            case fx.StoreSpec():
                return call(
                    "update_deployment",
                    NAME,
                    effect.spec,
                    etag=effect.etag,
                    is_new_generation=effect.is_new_generation,
                    request=effect.request,
                    **moment,
                )
        raise AssertionError(f"no way to carry out {type(effect).__name__}")
