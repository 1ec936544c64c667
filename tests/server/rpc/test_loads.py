"""GetLoad over the wire: what is expected, and what the placement in force makes of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from expertplane.v1 import deployment_pb2, deployment_service_pb2 as pb
from expertplane.wire import decode_tensor
from expertplane_server.core.errors import UnavailableError
from expertplane_server.rpc import deployments

from .. import builders
from . import messages


if TYPE_CHECKING:
    from .harness import Server


LOAD = "DeploymentService/GetLoad"
REQUEST = pb.GetLoadRequest(deployment=builders.NAME)


async def report(server: Server, *counts: float) -> None:
    """Show the forecast a window of one sample, and wait until it has learned it."""
    known = server.count("forecast_windows", deployment=builders.NAME) or 0
    stream = await server.join()
    sample = messages.load_report((counts,), first_step=int(known))
    await stream.say(load_report=sample)
    await stream.hear("report_ack")
    await server.settle()
    await stream.half_close()
    await stream.end()


def decoded(tensor: Any) -> Any:
    """Return a tensor's elements."""
    return decode_tensor(tensor, max_shape=(99, 99))


@pytest.fixture
def gain() -> Any:
    """Parameters under which no plan is worth publishing, and every window is learned."""
    return deployment_pb2.TriggerParameters(window_samples=1, min_gain=0.99)


async def test_load(server: Server, gain: Any) -> None:
    """Mean and deviation are tokens a sample; ranks carry what the placement gives them."""
    await server.create(trigger=gain)
    await report(server, 40, 30, 20, 10)
    load = await server.call(LOAD, REQUEST)

    assert decoded(load.mean) == pytest.approx(np.array([[40, 30, 20, 10]]))
    assert decoded(load.mean).dtype == np.float32
    deviation = decoded(load.standard_deviation)
    assert deviation.shape == (1, 4)
    assert (deviation > 0).all()
    assert (deviation < 40).all()
    assert decoded(load.rank_load) == pytest.approx(np.array([[70, 30]]))
    assert load.num_windows == 1


async def test_load_under_a_plan(server: Server, gain: Any) -> None:
    """What a rank carries follows the plan in force; a masked rank carries nothing."""
    topology = messages.topology(ranks_per_node=3, masked_ranks=[1])
    await server.create(trigger=gain, topology=topology)
    await server.lead_to(0, 3, -1, -1, 1, 2)
    known = await server.join(ranks=[0, 2])
    await known.say(load_report=messages.load_report(((40, 30, 20, 10),)))
    await known.hear("report_ack")
    await server.settle()
    load = await server.call(LOAD, REQUEST)

    assert decoded(load.rank_load) == pytest.approx(np.array([[50, 0, 50]]))


async def test_tokens_of_slow_ranks(server: Server, gain: Any) -> None:
    """Tokens are tokens, however long a slow rank takes for them."""
    topology = messages.topology(rank_capacities=[1.0, 0.25])
    await server.create(trigger=gain, topology=topology)
    await report(server, 40, 30, 20, 10)
    load = await server.call(LOAD, REQUEST)

    assert decoded(load.rank_load) == pytest.approx(np.array([[70, 30]]))


async def test_nothing_learned(server: Server) -> None:
    """Before the first window there is nothing to tell."""
    await server.create()
    refusal = await server.refusal(LOAD, REQUEST)

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_LOAD_YET")


@pytest.mark.parametrize(
    ("name", "code"),
    [("no/such", grpc.StatusCode.NOT_FOUND), ("nowhere", grpc.StatusCode.INVALID_ARGUMENT)],
)
async def test_no_such_deployment(server: Server, name: str, code: grpc.StatusCode) -> None:
    """A load belongs to a deployment that exists."""
    assert (await server.refusal(LOAD, pb.GetLoadRequest(deployment=name))).code is code


async def test_load_after_a_restart(server: Server, gain: Any) -> None:
    """What was saved is told without a window, by a service and a solver that begin anew."""
    await server.create(trigger=gain)
    await report(server, 40, 30, 20, 10)
    before = await server.call(LOAD, REQUEST)
    await server.directory.stop()
    server.solver.worker = type(server.solver.worker)(server.solver.worker._device)
    await server.directory.load()

    assert await server.call(LOAD, REQUEST) == before


async def test_too_many_calls(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the cap, a call is RESOURCE_EXHAUSTED."""
    monkeypatch.setattr(deployments, "_MAX_LOADS", 0)
    await server.create()
    refusal = await server.refusal(LOAD, REQUEST)

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SOLVER_BUSY")


async def test_solver_that_is_lost(
    server: Server, gain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the solver the load cannot be told now; the forecast is none the worse."""
    await server.create(trigger=gain)
    await report(server, 40, 30, 20, 10)
    before = await server.call(LOAD, REQUEST)

    async def fail(job: Any) -> Any:
        raise UnavailableError("lost")

    with monkeypatch.context() as patched:
        patched.setattr(server.solver, "run", fail)
        assert (await server.refusal(LOAD, REQUEST)).code is grpc.StatusCode.UNAVAILABLE
    assert await server.call(LOAD, REQUEST) == before


async def test_deleted_while_a_call_waits(
    server: Server, gain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that outlives its deployment leaves no series of it behind."""
    await server.create(trigger=gain)
    await report(server, 40, 30, 20, 10)
    run, may_answer, asked = server.solver.run, asyncio.Event(), asyncio.Event()

    async def wait(job: Any) -> Any:
        asked.set()
        await may_answer.wait()
        return await run(job)

    monkeypatch.setattr(server.solver, "run", wait)
    calling = asyncio.create_task(server.call(LOAD, REQUEST))
    await asked.wait()
    await server.delete()
    may_answer.set()

    assert (await calling).num_windows == 1
    assert server.count("forecast_windows", deployment=builders.NAME) is None
