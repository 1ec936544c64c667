"""Streams between participants and planners: ordered each way, slow, and lost at any moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from expertplane_server.core import events as ev


if TYPE_CHECKING:
    from expertplane_server.core import effects as fx
    from expertplane_server.core.errors import ServiceError

    from .participant_model import Process
    from .planner_model import Planner
    from .world import World


@dataclass(slots=True, eq=False)
class Stream:
    """One connection, with what each end believes of it.

    Attributes:
        number: unique, also over planners.
        is_open: neither end has closed it and it is not broken: what is sent now will arrive.
        is_lost: what is still under way will never arrive.
        arrives_up_s: when the last message to the planner arrives; none overtakes it.
        arrives_down_s: the same for the last message to the process.
        hello: the first message to the planner.
        sent: digests of the plans that the planner has sent, by version.
    """

    number: int
    process: Process
    planner: Planner
    is_open: bool = True
    is_lost: bool = False
    arrives_up_s: float = 0.0
    arrives_down_s: float = 0.0
    hello: ev.Hello | None = None
    sent: dict[int, str] = field(default_factory=dict)


class Network:
    """Carries messages, in order within a stream and in any order between streams."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._streams: dict[int, Stream] = {}
        self._num_streams = 0
        # By participant: when its partition ends.
        self._healed_at_s: dict[str, float] = {}

    @property
    def streams(self) -> list[Stream]:
        """The connections that are neither closed nor broken."""
        return list(self._streams.values())

    def connect(self, process: Process) -> Stream | None:
        """Open a stream to the planner that answers now; None when none can be reached."""
        planner = self._world.planner
        if planner is None or not planner.is_serving or self._is_cut(process):
            return None
        self._num_streams += 1
        stream = Stream(self._num_streams, process, planner)
        self._streams[stream.number] = stream
        planner.attach(stream)
        return stream

    def up(self, stream: Stream, event: ev.Event) -> None:
        """Send a message of a participant on its way."""
        if stream.is_open:
            if stream.hello is None and isinstance(event, ev.Hello):
                stream.hello = event
            stream.arrives_up_s = self._arrival(stream.arrives_up_s)
            self._world.loop.at(stream.arrives_up_s, self._arrive_up, stream, event)

    def down(self, stream: Stream, epoch: int, message: fx.Message) -> None:
        """Send a message of a planner on its way."""
        if stream.is_open:
            stream.arrives_down_s = self._arrival(stream.arrives_down_s)
            self._world.loop.at(stream.arrives_down_s, self._arrive_down, stream, epoch, message)

    def end(self, stream: Stream, error: ServiceError) -> None:
        """Have the planner end a stream: the process hears of it after all that was sent."""
        if not stream.is_open:
            return
        self._close(stream)
        stream.arrives_down_s = self._arrival(stream.arrives_down_s)
        self._world.loop.at(stream.arrives_down_s, self._arrive_end, stream, error)
        self._world.loop.after(0.001, stream.planner.stream_ended, stream, False)

    def hang_up(self, stream: Stream, *, is_goodbye: bool) -> None:
        """Have the process end a stream: the planner hears of it after all that was sent."""
        if stream.is_open:
            self._close(stream)
            stream.arrives_up_s = self._arrival(stream.arrives_up_s)
            self._world.loop.at(stream.arrives_up_s, self._arrive_hang_up, stream, is_goodbye)

    def lose(self, stream: Stream) -> None:
        """Break a connection; each end finds out in time, or by the other's silence."""
        rng = self._world.loop.rng
        if not stream.is_open:
            return
        self._close(stream)
        self._world.loop.note("net", "loses", stream.number)
        stream.is_lost = rng.random() < 0.5
        if rng.random() < 0.7:
            # Behind whatever is still under way, which may be long after a new stream has come.
            stream.arrives_up_s = self._arrival(stream.arrives_up_s) + rng.choice((0.0, 0.5, 4.0))
            self._world.loop.at(stream.arrives_up_s, stream.planner.stream_ended, stream, False)
        if rng.random() < 0.7:
            stream.arrives_down_s = self._arrival(stream.arrives_down_s)
            self._world.loop.at(stream.arrives_down_s, stream.process.stream_ended, stream)

    def drop_all(self, planner: Planner) -> None:
        """Break the streams of a planner that has died; the other ends find out."""
        for stream in self.streams:
            if stream.planner is planner:
                self._close(stream)
                stream.arrives_down_s = self._arrival(stream.arrives_down_s)
                self._world.loop.at(stream.arrives_down_s, stream.process.stream_ended, stream)

    def isolate(self, participant: str, span_s: float) -> None:
        """Let nothing through to or from a participant for a while; it waits meanwhile."""
        self._healed_at_s[participant] = self._world.loop.now_s + span_s

    def heal(self) -> None:
        """Take every partition away; what waits comes through as planned."""
        self._healed_at_s.clear()

    def _is_cut(self, process: Process) -> bool:
        return self._healed_at_s.get(process.site.name, 0.0) > self._world.loop.now_s

    def _close(self, stream: Stream) -> None:
        stream.is_open = False
        self._streams.pop(stream.number, None)

    def _arrival(self, last_s: float) -> float:
        world, rng = self._world, self._world.loop.rng
        delay_s = world.scenario.delay_s * (0.5 + rng.random())
        if not world.is_calm and rng.random() < 0.02:
            delay_s += rng.uniform(0.0, 5.0)
        return max(last_s, world.loop.now_s + delay_s)

    def _arrive_up(self, stream: Stream, event: ev.Event) -> None:
        if self._is_cut(stream.process):
            self._world.loop.at(
                self._healed_at_s[stream.process.site.name], self._arrive_up, stream, event
            )
        elif not stream.is_lost:
            stream.planner.receive(stream, event)

    def _arrive_down(self, stream: Stream, epoch: int, message: fx.Message) -> None:
        if self._is_cut(stream.process):
            self._world.loop.at(
                self._healed_at_s[stream.process.site.name],
                self._arrive_down,
                stream,
                epoch,
                message,
            )
        elif not stream.is_lost:
            stream.process.receive(stream, epoch, message)

    def _arrive_end(self, stream: Stream, error: ServiceError) -> None:
        stream.process.stream_ended(stream, error)

    def _arrive_hang_up(self, stream: Stream, is_goodbye: bool) -> None:
        stream.planner.stream_ended(stream, is_goodbye)
