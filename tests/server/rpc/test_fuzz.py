"""Anything may come in: only the codes of the protocol come out, and nothing changes."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings, strategies as st

from expertplane.v1 import deployment_pb2, placement_service_pb2 as placement_pb2, plan_pb2

from .. import builders
from . import messages
from .harness import SERVICES, Refusal, Server, Stream


if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator


ALLOWED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.UNIMPLEMENTED,
}
METHODS = [
    (f"{service.name}/{method.name}", method.input_type)
    for service in SERVICES.values()
    for method in service.methods
    if not (method.client_streaming or method.server_streaming)
]
METHOD_INPUTS = dict(METHODS)
MUTATING = (
    *("CreateDeployment", "DeleteDeployment", "UpdateDeployment"),
    *("PublishPlan", "Rebalance", "RollBack", "Pause", "Resume"),
)
QUICK = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
_WORDS = st.sampled_from(
    [
        *("", "a", builders.NAME, "no/such", "deepseek", "robust", "r-1", "7"),
        *("risk", "max_swaps", builders.incarnation(1), "\u00e4"),
    ]
)
_NUMBERS = st.sampled_from([0, 1, 2, 3, 4, 255, 4097, 2**31 - 1])
_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_INT32: st.one_of(_NUMBERS, st.integers(-(2**31), 2**31 - 1)),
    FieldDescriptor.CPPTYPE_INT64: st.one_of(_NUMBERS, st.integers(-(2**63), 2**63 - 1)),
    FieldDescriptor.CPPTYPE_UINT32: st.one_of(_NUMBERS, st.integers(0, 2**32 - 1)),
    FieldDescriptor.CPPTYPE_UINT64: st.one_of(_NUMBERS, st.integers(0, 2**64 - 1)),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_ENUM: st.one_of(st.integers(0, 5), st.integers(-(2**31), 2**31 - 1)),
    FieldDescriptor.CPPTYPE_STRING: st.one_of(_WORDS, st.text(max_size=300)),
}


@st.composite
def wire(draw: st.DrawFn, descriptor: Any, depth: int = 0) -> Any:
    """Draw any message of a type, its numbers and names often meaningful."""
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if not draw(st.booleans()):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for key in draw(st.lists(_WORDS, max_size=2)):
                getattr(message, field.name)[key] = draw(_WORDS)
        elif field.is_repeated:
            for value in draw(st.lists(_value(field, depth), max_size=4)):
                if field.message_type is None:
                    getattr(message, field.name).append(value)
                else:
                    getattr(message, field.name).add().CopyFrom(value)
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(draw(_value(field, depth)))
        else:
            setattr(message, field.name, draw(_value(field, depth)))
    return message


def _value(field: Any, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        if field.message_type.name == "Tensor":
            return _tensors()
        return wire(field.message_type, depth + 1)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=64)
    return _SCALARS[field.cpp_type]


@st.composite
def _tensors(draw: st.DrawFn) -> Any:
    """Draw a tensor, often one whose parts fit together."""
    shape = draw(st.lists(st.sampled_from([0, 1, 2, 4, 2**32 - 1]), max_size=4))
    dtype = draw(st.integers(0, 6))
    size = {1: 2, 2: 4, 3: 8, 4: 4, 5: 8}.get(dtype, 1)
    for extent in shape:
        size *= extent
    if size > 512 or draw(st.integers(0, 3)) == 0:
        size = draw(st.integers(0, 32))
    return messages.shaped(shape, dtype, draw(st.binary(min_size=size, max_size=size)))


class Runner:
    """Runs coroutines one after another in one loop, beside a server."""

    def __init__(self, runner: asyncio.Runner, server: Server) -> None:
        self.server = server
        self._runner = runner

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to its end."""
        return self._runner.run(coroutine)


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    """A server with one deployment, in a loop of its own."""
    with asyncio.Runner() as loop:

        async def started() -> Server:
            server = await Server().__aenter__()
            await server.create()
            return server

        server = loop.run(started())
        yield Runner(loop, server)
        loop.run(server.__aexit__(None, None, None))


async def _outcome(server: Server, path: str, raw: bytes) -> Refusal | None:
    """Return how a call fails, or None."""
    try:
        await server.call(path, raw)
    except grpc.aio.AioRpcError as error:
        return Refusal.of(error)
    return None


def _judge(runner: Runner, path: str, raw: bytes) -> None:
    """Make a call and check what comes out of it, and what stays."""
    before = runner.server.state()
    outcome = runner.run(_outcome(runner.server, path, raw))
    if outcome is not None:
        assert outcome.code in ALLOWED, outcome
        assert outcome.reason, outcome
        assert runner.server.state() == before
    elif not path.endswith(MUTATING):
        assert runner.server.state() == before
    assert _core_errors(runner) == 0


@pytest.mark.parametrize("path", [path for path, _ in METHODS])
@QUICK
@given(raw=st.binary(max_size=200))
def test_any_bytes(runner: Runner, path: str, raw: bytes) -> None:
    """Random bytes end a call with a code of the protocol, or are a request."""
    _judge(runner, path, raw)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method[0])
@QUICK
@given(data=st.data())
def test_any_message(runner: Runner, method: Any, data: st.DataObject) -> None:
    """Random messages end a call with a code of the protocol; refused ones change nothing."""
    path, descriptor = method

    _judge(runner, path, data.draw(wire(descriptor)).SerializeToString())


@st.composite
def _sensible_jobs(draw: st.DrawFn) -> Any:
    """Draw a ComputePlan request that gets as far as the solver, and often to a plan."""
    num_nodes, slots_per_rank = draw(st.sampled_from([(1, 2), (1, 3), (2, 1), (2, 2)]))
    num_slots = num_nodes * 2 * slots_per_rank
    counts = draw(st.lists(st.integers(0, 9), min_size=8, max_size=8))
    others = st.lists(st.integers(0, 3), min_size=num_slots - 4, max_size=num_slots - 4)
    experts = draw(st.permutations([0, 1, 2, 3, *draw(others)]))
    mode = draw(st.integers(0, 4))
    budget = draw(st.none() | st.integers(0, 5))
    return messages.compute_plan(
        samples=messages.tensor([[counts[:4]], [counts[4:]]], "int32"),
        topology=messages.topology(num_nodes=num_nodes, slots_per_rank=slots_per_rank),
        num_expert_groups=draw(st.sampled_from([1, 2, 4])),
        policy=deployment_pb2.PolicySpec(
            name=draw(st.sampled_from(["", "robust", "deepseek"])),
            mode=mode,  # type: ignore[arg-type]  # a number as it comes from the wire
            max_foreign_replicas=draw(st.integers(0, 2)) if mode == 4 else 0,
            parameters=draw(st.dictionaries(st.just("risk"), st.sampled_from(["0.5", "7", "x"]))),
            max_moved_slots_per_layer=budget,
        ),
        engine=deployment_pb2.EngineProfile(
            engine=draw(st.sampled_from([0, 1, 4])),  # type: ignore[arg-type]
            forbid_duplicates_on_rank=draw(st.booleans()),
            forbid_moves_inside_rank=draw(st.booleans()),
            max_replicas_per_expert=draw(st.integers(0, 4)),
        ),
        incumbent_phy2log=draw(st.none() | st.just(messages.tensor([experts], "int16"))),
    )


@QUICK
@given(request=_sensible_jobs())
def test_any_sensible_job(runner: Runner, request: Any) -> None:
    """A job that the solver must look at is planned for within its budget, or refused."""

    async def compute() -> Any:
        return (await runner.server.call("PlanService/ComputePlan", request)).plan

    try:
        plan = runner.run(compute())
    except grpc.aio.AioRpcError as error:
        refusal = Refusal.of(error)
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT, refusal
        assert refusal.fields, refusal
        return
    has_incumbent = request.HasField("incumbent_phy2log")
    assert plan.HasField("transfers") == has_incumbent
    if has_incumbent and request.policy.HasField("max_moved_slots_per_layer"):
        # What breaks a rule of the engine, or the mode, is put right whatever the budget.
        is_bound = request.engine == deployment_pb2.EngineProfile()
        is_bound &= plan.metadata.policy.mode == deployment_pb2.MODE_GLOBAL
        moved = Counter(
            each.layer
            for each in plan.transfers.transfers
            if each.link_class != plan_pb2.LINK_CLASS_SAME_RANK
        )
        budget = request.policy.max_moved_slots_per_layer
        assert max(moved.values(), default=0) <= budget or not is_bound


@st.composite
def _sensible_orders(draw: st.DrawFn) -> tuple[str, Any]:
    """Draw a call about plans that is in order, though the deployment may not be up to it."""
    told: dict[str, Any] = {"deployment": builders.NAME}
    method = draw(
        st.sampled_from(["PublishPlan", "RollBack", "Rebalance", "Pause", "Resume", "DiffPlans"])
    )
    if method in ("PublishPlan", "RollBack", "Rebalance"):
        told["expected_head"] = draw(st.none() | st.integers(0, 3))
    if method == "PublishPlan":
        experts = draw(st.permutations(range(4)) | st.lists(st.integers(-1, 4), max_size=5))
        told["phy2log"] = messages.tensor([experts], "int16")
    if method == "RollBack":
        told["to_version"] = draw(st.integers(0, 4))
    if method == "DiffPlans":
        told |= {"from_version": draw(st.integers(0, 4)), "to_version": draw(st.integers(0, 4))}
    else:
        told["request_id"] = draw(st.sampled_from(["", "r-1", "r-2"]))
    request_class = GetMessageClass(METHOD_INPUTS[f"PlanService/{method}"])
    return f"PlanService/{method}", request_class(**told)


@QUICK
@given(calls=st.lists(_sensible_orders(), min_size=1, max_size=6))
def test_any_sensible_orders(runner: Runner, calls: list[tuple[str, Any]]) -> None:
    """Orders are carried out, or refused without a trace; versions only ever rise."""
    heads = [runner.run(_head(runner.server))]
    for path, request in calls:
        _judge(runner, path, request.SerializeToString())
        heads.append(runner.run(_head(runner.server)))

    assert heads == sorted(heads)


async def _head(server: Server) -> int:
    """Return the head of the deployment, which is made if another test has removed it."""
    if server.directory.find(builders.NAME) is None:
        await server.create()
    head: int = (await server.get()).status.head_version
    return head


async def _converse(server: Server, send: Callable[[Stream], Coroutine[Any, Any, None]]) -> None:
    """Let a stream say anything behind its Hello; it must live on, or end for a good reason."""
    stream = await server.join(participant_id="fuzz", incarnation=builders.incarnation(9))
    await send(stream)
    await stream.half_close()
    ending = await stream.end()
    assert ending is None or ending.code in ALLOWED, ending


@QUICK
@given(parts=st.lists(st.binary(max_size=100), max_size=5))
def test_any_bytes_on_a_stream(runner: Runner, parts: list[bytes]) -> None:
    """Random bytes behind a Hello never end the stream but in order."""

    async def send(stream: Stream) -> None:
        for part in parts:
            await stream.say_raw(part)

    runner.run(_converse(runner.server, send))
    assert _core_errors(runner) == 0


@QUICK
@given(data=st.data())
def test_any_message_on_a_stream(runner: Runner, data: st.DataObject) -> None:
    """Random messages behind a Hello end the stream in order and never trip the core."""
    requests = data.draw(st.lists(wire(placement_pb2.ConnectRequest.DESCRIPTOR), max_size=5))

    async def send(stream: Stream) -> None:
        for request in requests:
            await stream.say_raw(request.SerializeToString())
            if request.WhichOneof("message") == "goodbye":
                return

    runner.run(_converse(runner.server, send))
    assert _core_errors(runner) == 0


@QUICK
@given(hello=wire(placement_pb2.Hello.DESCRIPTOR))
def test_any_hello(runner: Runner, hello: Any) -> None:
    """A random Hello is welcomed, or ends the stream with a code of the protocol."""

    async def say() -> None:
        stream = runner.server.connect()
        await stream.say(hello=hello)
        await stream.half_close()
        ending = await stream.end()
        assert ending is None or ending.code in ALLOWED, ending

    runner.run(say())
    assert _core_errors(runner) == 0


def _core_errors(runner: Runner) -> float | None:
    return runner.server.metrics.registry.get_sample_value("expertplane_core_errors_total")
