"""WatchPlans: whatever is committed, then every later plan; a watch outlives its deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from expertplane.v1 import plan_service_pb2 as pb
from expertplane_server.rpc import plans

from .. import builders


if TYPE_CHECKING:
    from .harness import Server, Watch


async def versions(watch: Watch, number: int) -> list[int]:
    """Return the versions of the next plans."""
    return [(await watch.next()).plan.metadata.version for _ in range(number)]


async def test_waits_for_the_first_plan(server: Server) -> None:
    """A watch of a deployment without plans says that it waits, and then brings each plan."""
    await server.create()
    stream = await server.join()
    watch = server.watch()

    assert (await watch.next()).state == pb.WATCH_STATE_WAITING
    await server.publish(stream, 0, 2, 1, 3, step=1)
    assert await versions(watch, 1) == [1]
    await server.publish(stream, 3, 2, 1, 0, step=2)
    assert await versions(watch, 1) == [2]


async def test_starts_with_the_committed_plan(server: Server) -> None:
    """A watch starts with whatever is committed, in the planner's term."""
    await server.create()
    stream = await server.join()
    await server.publish(stream, 0, 2, 1, 3, step=1)
    first = await server.watch().next()

    assert (first.plan.metadata.version, first.epoch) == (1, 1)
    assert first.plan.HasField("log2phy")
    assert not (await server.watch(omit_derived_maps=True).next()).plan.HasField("log2phy")


async def test_resumes(server: Server) -> None:
    """A watch from the version after the one last seen skips what was seen."""
    await server.create()
    stream = await server.join()
    await server.publish(stream, 0, 2, 1, 3, step=1)
    watch = server.watch(from_version=2)

    assert (await watch.next()).state == pb.WATCH_STATE_WAITING
    await server.publish(stream, 3, 2, 1, 0, step=2)
    assert await versions(watch, 1) == [2]


async def test_skips(server: Server) -> None:
    """A watcher that comes late gets the latest plan, not all of them."""
    await server.create()
    stream = await server.join()
    for step, experts in enumerate([(0, 2, 1, 3), (3, 2, 1, 0), (0, 2, 1, 3)], 1):
        await server.publish(stream, *experts, step=step)

    assert await versions(server.watch(from_version=2), 1) == [3]


async def test_unknown_deployment_that_appears(server: Server) -> None:
    """A watch of what does not exist says so, lives, and goes on when it appears."""
    watch = server.watch()

    assert (await watch.next()).state == pb.WATCH_STATE_DEPLOYMENT_UNKNOWN
    await server.create()
    assert (await watch.next()).state == pb.WATCH_STATE_WAITING
    await server.publish(await server.join(), 0, 2, 1, 3, step=1)
    assert await versions(watch, 1) == [1]


async def test_deployment_that_goes_and_comes_back(server: Server) -> None:
    """A watch is told of a removal, and of the plans of the successor, whose versions go on."""
    await server.create()
    await server.publish(await server.join(), 0, 2, 1, 3, step=1)
    watch = server.watch()
    await versions(watch, 1)

    await server.delete()
    assert (await watch.next()).state == pb.WATCH_STATE_DEPLOYMENT_UNKNOWN
    await server.create()
    assert (await watch.next()).state == pb.WATCH_STATE_WAITING
    await server.publish(await server.join(participant_id="b"), 3, 2, 1, 0, step=1)
    assert await versions(watch, 1) == [2]


async def test_drain(server: Server) -> None:
    """A drain ends every watch, also of what is unknown, and lets no new one in."""
    await server.create()
    watches = [server.watch(), server.watch("no/such")]
    for watch in watches:
        await watch.next()
    server.directory.drain(5.0)

    for watch in [*watches, server.watch()]:
        ending = await watch.end()
        assert (ending.code, ending.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")


@pytest.mark.parametrize(
    ("field", "changes"),
    [("deployment", {"name": "nowhere"}), ("from_version", {"from_version": 2**63})],
)
async def test_bad_watch(server: Server, field: str, changes: dict[str, int]) -> None:
    """A watch that breaks a rule ends with the field's name."""
    ending = await server.watch(**changes).end()  # type: ignore[arg-type]

    assert (ending.code, ending.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field])


async def test_nothing_is_kept_about_watchers_that_have_gone(server: Server) -> None:
    """Watches of a thousand unknown names leave nothing behind when they go."""
    watches = [server.watch(f"no/such-{number}") for number in range(20)]
    for watch in watches:
        await watch.next()
    for watch in watches:
        watch.cancel()
    # A watch that is still served afterwards shows that the cancellations have been seen.
    last = server.watch(builders.NAME)
    await last.next()
    await server.create()
    await last.next()

    assert set(server.hub._changed) <= {builders.NAME}


async def test_too_many_watches(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the cap, a watch is RESOURCE_EXHAUSTED; one that ends makes room."""
    monkeypatch.setattr(plans, "MAX_STREAMS", 1)
    first = server.watch()
    await first.next()

    ending = await server.watch().end()
    assert (ending.code, ending.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "TOO_MANY_STREAMS",
    )
