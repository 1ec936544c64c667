"""Simulated serving nodes: they route recorded or synthetic load and obey the planner's plans."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane.v1 import deployment_pb2
from expertplane_client import (
    AlreadyExistsError,
    Client,
    InputError,
    Participant,
    UnavailableError,
)
from expertplane_client.balance import balance, initial_phy2log
from expertplane_client.names import bare_name, mode_enum_name


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from types import TracebackType
    from typing import Self

    import numpy.typing as npt

    from expertplane.v1 import decision_pb2
    from expertplane_client import Plan

_DECISION_TIMEOUT_S = 60.0
_POLL_S = 0.02
_NO_DECISION = "NONE_PLANNER_RESTARTED"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetConfig:
    """A deployment of simulated nodes.

    Attributes:
        num_participants: simulated nodes; divides `num_ranks`.
        spill: replicas per layer that may leave their expert group's node, in soft-hierarchical
            mode.
        policy: algorithm that makes the plans; empty takes the planner's default.
        samples_per_window: samples after which the planner decides.
        max_moved_slots: slots per layer whose rank may have to fetch an expert; None sets no
            limit.
        rollout: how plans reach the nodes: advisory, coordinated or shadow.
    """

    address: str
    deployment: str
    num_participants: int
    num_ranks: int
    num_nodes: int
    num_slots: int
    num_expert_groups: int
    mode: str
    spill: int
    policy: str
    samples_per_window: int
    seed: int
    max_moved_slots: int | None = None
    rollout: str = "advisory"

    def __post_init__(self) -> None:
        for large, small in (
            ("num_ranks", "num_participants"),
            ("num_ranks", "num_nodes"),
            ("num_slots", "num_ranks"),
        ):
            count, divisor = getattr(self, large), getattr(self, small)
            if divisor < 1 or count < 1 or count % divisor:
                raise InputError(
                    f"Expected {large} to be a multiple of {small}, got {count} and {divisor}."
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowResult:
    """What one window showed.

    Attributes:
        without: balancedness of its samples under the start placement.
        measured: balancedness under the placement in force while they were counted.
        plan_version: the plan that came of it, 0 for none.
        reached_s: from the last sample sent to the plan in force on every node; None without a
            plan, and after a restart of the planner, whose windows no longer end with these.
    """

    index: int
    without: float
    measured: float
    reason: str
    message: str
    plan_version: int
    moved_slots: int
    predicted: float
    reached_s: float | None


class Node:
    """One simulated serving node: some ranks, and the placement they serve with."""

    def __init__(self, config: FleetConfig, index: int, run_id: str, start: Any) -> None:
        per_node = config.num_ranks // config.num_participants
        self.phy2log: npt.NDArray[np.int32] = start
        self.applied = asyncio.Event()
        self.participant = Participant(
            config.address,
            config.deployment,
            f"node-{index}",
            range(index * per_node, (index + 1) * per_node),
            engine_run_id=run_id,
            apply=self._apply,
        )

    async def _apply(self, plan: Plan) -> int:
        """Switches the ranks at once; a real engine agrees on a step first."""
        self.phy2log = plan.phy2log
        self.applied.set()
        return 0


class Fleet:
    """All nodes of a deployment, in step.

    Args:
        config: the deployment.
        windows: load, each [samples, layers, experts], tokens.
    """

    def __init__(self, config: FleetConfig, windows: Iterator[npt.NDArray[np.int64]]) -> None:
        self._config = config
        self._windows = windows
        self._first = next(windows)
        _, self._num_layers, self._num_experts = self._first.shape
        self._start = initial_phy2log(self._num_layers, self._num_experts, config.num_slots)
        self._rng = np.random.default_rng(config.seed)
        self._stack = AsyncExitStack()
        self._nodes: list[Node] = []
        self._epoch = 0
        self._sequence = 0
        self._has_restarted = False

    async def __aenter__(self) -> Self:
        config = self._config
        self._client = await self._stack.enter_async_context(Client(config.address))
        try:
            await self._declare()
            run_id = uuid.uuid4().hex
            for index in range(config.num_participants):
                node = Node(config, index, run_id, self._start)
                await self._stack.enter_async_context(node.participant)
                self._nodes.append(node)
            # A participant has no event for this; it would serve nobody else.
            while not all(node.participant.is_connected for node in self._nodes):  # noqa: ASYNC110
                await asyncio.sleep(_POLL_S)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def run(self, num_windows: int) -> AsyncIterator[WindowResult]:
        """Serves window after window and yields what each of them showed."""
        await self._read_journal()
        window = self._first
        for index in range(num_windows):
            if index:
                window = next(self._windows)
            yield await self._serve(index, window)

    async def _declare(self) -> None:
        """Creates the deployment, or makes sure that the present one is the same.

        Raises:
            InputError: another deployment of this name has other dimensions.
        """
        name, spec = self._config.deployment, self._spec()
        try:
            await self._client.create_deployment(name, spec)
        except AlreadyExistsError:
            self._check_present((await self._client.get_deployment(name)).spec, spec)

    def _spec(self) -> deployment_pb2.DeploymentSpec:
        """Returns what is asked of the planner."""
        config = self._config
        return deployment_pb2.DeploymentSpec(
            model_name="simulated",
            layer_ids=range(self._num_layers),
            num_logical_experts=self._num_experts,
            num_expert_groups=config.num_expert_groups,
            topology=deployment_pb2.Topology(
                num_nodes=config.num_nodes,
                ranks_per_node=config.num_ranks // config.num_nodes,
                slots_per_rank=config.num_slots // config.num_ranks,
            ),
            policy=deployment_pb2.PolicySpec(
                name=config.policy,
                mode=mode_enum_name(config.mode),
                max_foreign_replicas=config.spill,
                max_moved_slots_per_layer=config.max_moved_slots,
            ),
            trigger=deployment_pb2.TriggerParameters(window_samples=config.samples_per_window),
            rollout=deployment_pb2.RolloutParameters(
                mode=f"ROLLOUT_MODE_{config.rollout.upper()}",
            ),
        )

    def _check_present(
        self, present: deployment_pb2.DeploymentSpec, spec: deployment_pb2.DeploymentSpec
    ) -> None:
        """Refuses a deployment of this name that the simulation would misread.

        Raises:
            InputError: it is another.
        """
        name = self._config.deployment
        for field in ("layer_ids", "num_logical_experts", "num_expert_groups", "topology"):
            if getattr(present, field) != getattr(spec, field):
                raise InputError(
                    f"Expected {name} to have the {field} of this simulation; "
                    "choose another --deployment."
                )
        for what, expected, got in (
            (
                "decide every so many samples",
                spec.trigger.window_samples,
                present.trigger.window_samples,
            ),
            ("be rolled out", self._config.rollout, _rollout_name(present)),
        ):
            if expected != got:
                raise InputError(
                    f"Expected {name} to {what}: {expected}, got {got}; "
                    "choose another --deployment."
                )

    async def _serve(self, index: int, window: npt.NDArray[np.int64]) -> WindowResult:
        """Routes one window's tokens and waits for what the planner makes of it."""
        loop = asyncio.get_running_loop()
        in_force = self._nodes[0].phy2log
        share = self._split(window)
        first_step = index * self._config.samples_per_window
        for node, counts in zip(self._nodes, share, strict=True):
            node.participant.report(counts, first_step=first_step)
        await asyncio.gather(*(node.participant.flush() for node in self._nodes))
        sent_at_s = loop.time()
        decision = await self._next_decision()
        version = decision.plan_version if decision is not None else 0
        reached_s = await self._reached(version, sent_at_s) if version else None
        if self._has_restarted:
            reached_s = None
        ranks = self._config.num_ranks
        return WindowResult(
            index=index,
            without=balance(window, self._start, ranks).balancedness,
            measured=balance(window, in_force, ranks).balancedness,
            reason=_reason(decision),
            message=decision.message if decision is not None else "",
            plan_version=version,
            moved_slots=decision.moved_slots if version and decision is not None else 0,
            predicted=decision.balancedness_after if decision is not None else 0.0,
            reached_s=reached_s,
        )

    def _split(self, window: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int32]]:
        """Deals every token to the node that routes it, evenly at random."""
        left = window
        shares = []
        for others in range(len(self._nodes), 1, -1):
            share = self._rng.binomial(left, 1.0 / others)
            shares.append(share.astype(np.int32))
            left = left - share
        return [*shares, left.astype(np.int32)]

    async def _next_decision(self) -> decision_pb2.Decision | None:
        """Returns the decision on the window just sent; None when the planner lost it."""
        epoch = self._epoch
        async with asyncio.timeout(_DECISION_TIMEOUT_S):
            while True:
                for decision in await self._read_journal():
                    if decision.num_samples:
                        return decision
                if self._epoch != epoch:
                    # Load is soft state: what a planner had gathered goes with it.
                    return None
                await asyncio.sleep(_POLL_S)

    async def _read_journal(self) -> list[decision_pb2.Decision]:
        """Returns the decisions that were not read before."""
        name = self._config.deployment
        try:
            status = (await self._client.get_deployment(name)).status
            if status.epoch != self._epoch:
                self._has_restarted = self._epoch != 0
                self._epoch = status.epoch
            decisions = await self._client.explain_decisions(name, after_sequence=self._sequence)
        except UnavailableError:
            return []
        if decisions:
            self._sequence = decisions[-1].sequence
        return decisions

    async def _reached(self, version: int, sent_at_s: float) -> float:
        """Returns the time from the last sample to the plan in force on every node, in seconds."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_DECISION_TIMEOUT_S):
            for node in self._nodes:
                while node.participant.applied_version < version:
                    node.applied.clear()
                    await node.applied.wait()
                    # The participant notes the version right after the switch that woke us.
                    await asyncio.sleep(0)
        return loop.time() - sent_at_s


def _reason(decision: decision_pb2.Decision | None) -> str:
    """Returns the bare reason of a decision."""
    from expertplane.v1 import decision_pb2

    if decision is None:
        return _NO_DECISION
    return decision_pb2.DecisionReason.Name(decision.reason).removeprefix("DECISION_REASON_")


def _rollout_name(spec: deployment_pb2.DeploymentSpec) -> str:
    """Returns the bare name of a roll-out mode, in lower case."""
    return bare_name(deployment_pb2.RolloutMode, spec.rollout.mode).lower()
