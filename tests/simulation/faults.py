"""What goes wrong in a world, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import mischief


if TYPE_CHECKING:
    from .participant_model import Site
    from .world import World


HOUR_S = 3600.0


def schedule(world: World) -> None:
    """Have every kind of fault that this world knows come again and again."""
    for name, rate in world.scenario.faults:
        world.loop.after(world.loop.rng.expovariate(rate), _strike, world, name, rate)
    world.loop.after(world.loop.rng.uniform(1.0, 20.0), _back_up, world)
    world.loop.after(world.loop.rng.uniform(3.0, 20.0), _intrude, world)


def end(world: World) -> None:
    """Let nothing go wrong any more, and bring back whoever is down."""
    world.is_calm = True
    world.loop.note("world", "calms down")
    world.disk.is_broken = False
    world.network.heal()
    for zombie in list(world.zombies):
        zombie.die()
    if world.planner is not None:
        world.planner.quench_fuse()
        world.planner.resume()
        world.planner.fail_hung_solves()
    for process in list(world.processes.values()):
        if process.is_alive and process.site.process is not process:
            process.kill()
    for site in world.sites:
        if site.process is None or not site.process.is_alive:
            world.start_process(site)


def _strike(world: World, name: str, rate: float) -> None:
    if world.is_calm:
        return
    world.loop.note("world", "strikes:", name)
    _FAULTS[name](world)
    world.loop.after(world.loop.rng.expovariate(rate), _strike, world, name, rate)


def _lose_stream(world: World) -> None:
    streams = world.network.streams
    if streams:
        world.network.lose(world.loop.rng.choice(streams))


def _partition(world: World) -> None:
    site = world.loop.rng.choice(world.sites)
    world.network.isolate(site.name, world.loop.rng.choice((1.0, 5.0, 12.0)))


def _crash_participant(world: World) -> None:
    rng = world.loop.rng
    site = rng.choice(world.sites)
    process = site.process
    turn = rng.random()
    if turn < 0.2:
        # The old process lives on: a node that was given up too early.
        world.start_process(site)
        return
    if process is not None and process.is_alive:
        if turn < 0.4:
            process.leave()
        else:
            process.kill()
    if rng.random() < 0.3:
        site.saved = None
    world.loop.after(rng.choice((0.1, 2.0, 8.0)), _start_again, world, site)


def _start_again(world: World, site: Site) -> None:
    if site.process is None or not site.process.is_alive:
        world.start_process(site)


def _crash_server(world: World) -> None:
    if world.planner is not None:
        world.planner.light_fuse(world.loop.rng.randrange(0, 40))


def _pause_server(world: World) -> None:
    planner = world.planner
    if planner is not None and planner.is_serving:
        planner.pause()
        world.loop.after(world.loop.rng.choice((1.0, 5.0, 15.0)), planner.resume)


def _take_over(world: World) -> None:
    """Let another planner open the store while the owner stands still, and wake the owner."""
    owner = world.planner
    if owner is None or not owner.is_serving or world.disk.is_broken:
        return
    owner.pause()
    world.zombies.append(owner)
    world.planner = None
    rng = world.loop.rng
    world.loop.after(rng.uniform(0.5, 3.0), world.start_planner)
    world.loop.after(rng.choice((0.1, 4.0, 8.0)), owner.resume)
    world.loop.after(20.0, owner.die)


def _jump_clock(world: World) -> None:
    rng = world.loop.rng
    if rng.random() < 0.5:
        world.wall_ahead_s += rng.choice((-HOUR_S, HOUR_S))
    else:
        world.monotonic_ahead_s += HOUR_S


def _break_store(world: World) -> None:
    world.disk.is_broken = True
    world.loop.after(world.loop.rng.choice((0.5, 3.0, 10.0)), _mend_store, world)


def _mend_store(world: World) -> None:
    world.disk.is_broken = False


def _restore_backup(world: World) -> None:
    """Put an older state of the store in place, as people do when all planners are down."""
    for planner in [*world.zombies, world.planner]:
        if planner is not None:
            planner.die()
    world.disk.restore()


def _restart_engine(world: World) -> None:
    """Start all engines anew, and with them all participants."""
    world.load.restart(world.loop.now_s)
    for process in list(world.processes.values()):
        if process.is_alive:
            process.kill()
    for site in world.sites:
        world.loop.after(world.loop.rng.uniform(0.2, 3.0), _start_again, world, site)


def _back_up(world: World) -> None:
    if not world.is_calm:
        world.disk.back_up()
        world.loop.after(world.loop.rng.uniform(5.0, 20.0), _back_up, world)


def _intrude(world: World) -> None:
    """Have somebody open a stream who must not."""
    if world.is_calm:
        return
    planner, process = world.planner, world.loop.rng.choice(world.sites).process
    if planner is not None and planner.is_serving and process is not None:
        # Nobody listens to the answer; negative numbers belong to no stream.
        world.num_intruders += 1
        planner.submit(mischief.hello(world, process, -world.num_intruders))
    world.loop.after(world.loop.rng.uniform(5.0, 20.0), _intrude, world)


_FAULTS = {
    "lose_stream": _lose_stream,
    "partition": _partition,
    "crash_participant": _crash_participant,
    "crash_server": _crash_server,
    "pause_server": _pause_server,
    "take_over": _take_over,
    "jump_clock": _jump_clock,
    "break_store": _break_store,
    "restore_backup": _restore_backup,
    "restart_engine": _restart_engine,
}
