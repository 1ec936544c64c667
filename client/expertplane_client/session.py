"""A participant's side of the protocol: messages of the planner in, effects out.

Pure: no asyncio, no gRPC, no clock. `participant` carries the effects out. Outlives streams; every
`hello` starts a new one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from expertplane.v1 import placement_service_pb2 as placement_pb2

from . import messages
from .effects import (
    Acked,
    AdoptPlan,
    DrainRequested,
    Effect,
    Problem,
    RefusedReport,
    Remember,
    Send,
    SetReportInterval,
    StagePlan,
    Unstage,
    Welcomed,
)
from .errors import ProtocolError
from .plan import Plan
from .reports import Switch


if TYPE_CHECKING:
    from collections.abc import Callable

    from expertplane.v1 import plan_pb2

    from .identity import Identity


DEFAULT_HEARTBEAT_INTERVAL_S = 10.0
MAX_INTERVAL_S = 3600.0
MAX_SAMPLES_PER_REPORT = 64
MAX_MESSAGE_BYTES = 2 * 1024 * 1024
_UNACCEPTABLE = "PLAN_UNACCEPTABLE"


class _PlanRefused(Exception):
    """A plan must not reach the ranks; becomes a Nack."""

    def __init__(self, reason: str, message: str, *, is_transient: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.is_transient = is_transient


class Session:
    """What a participant has, has seen, and is about to do.

    A message of a lower epoch than the highest seen changes nothing; neither does a kind that this
    release does not know. A plan is checked before it is adopted. One that is no newer than the
    applied plan is refused, unless it comes from a later term than the applied plan did: then the
    planner's store was restored, and what it holds is the truth.

    At most one plan is prepared at a time, from the placement in force: another Stage replaces it,
    and so does a Commit of another plan, as the buffers then hold what nobody will ask for.

    Args:
        identity: Who the participant is.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._highest_version = 0
        self._highest_epoch = 0
        self._applied = messages.PlanRef(version=0, digest=identity.initial_digest())
        self._applied_epoch = 0
        self._applied_step = 0
        self._previous_version = 0
        # Being prepared; a repeated Stage of it must not start that again.
        self._staging: Plan | None = None
        self._stage_nonce = 0
        self._staged: Plan | None = None
        # On its way to the ranks; a repeated commit of it must not start the way again.
        self._adopting: Plan | None = None
        # By version, the message of this stream that an answer will belong to.
        self._nonces: dict[int, int] = {}

    @property
    def applied_version(self) -> int:
        """The version that the ranks serve with; 0 is the start placement."""
        return self._applied.version

    @property
    def staged_version(self) -> int:
        """The version that is prepared and not switched to; 0 when there is none."""
        return 0 if self._staged is None else self._staged.version

    @property
    def switch(self) -> Switch:
        """The latest switch, which tells the plan that a step was served with."""
        return Switch(
            previous_version=self._previous_version,
            version=self._applied.version,
            step=self._applied_step,
        )

    @property
    def highest_version(self) -> int:
        """The highest plan version ever seen; must outlive the process."""
        return self._highest_version

    @property
    def highest_epoch(self) -> int:
        """The highest planner's term ever seen; must outlive the process."""
        return self._highest_epoch

    def restore(self, highest_version: int, highest_epoch: int) -> None:
        """Takes over what an earlier start of the participant has seen."""
        self._saw(highest_version)
        self._highest_epoch = max(self._highest_epoch, highest_epoch)

    def hello(self) -> messages.Request:
        """Returns the first message of a new stream; what older streams asked loses its nonce."""
        self._nonces.clear()
        self._stage_nonce = 0
        return messages.hello(
            self._identity,
            applied=self._applied,
            staged=self._staged,
            highest_version=self._highest_version,
            highest_epoch=self._highest_epoch,
        )

    def heartbeat(self) -> messages.Request:
        """Returns the sign of life."""
        return messages.heartbeat(self._applied)

    def mismatch(self, plan: Plan) -> str:
        """Returns why a plan cannot be for these ranks; empty when it can."""
        identity = self._identity
        if plan.deployment != identity.deployment:
            return f"Expected a plan for {identity.deployment!r}, got one for {plan.deployment!r}."
        if identity.generation and plan.generation != identity.generation:
            return f"Expected a plan for generation {identity.generation}, got {plan.generation}."
        start = identity.initial_phy2log
        if start is not None and start.shape != plan.phy2log.shape:
            shapes = list(start.shape), list(plan.phy2log.shape)
            return f"Expected phy2log of shape {shapes[0]}, got {shapes[1]}."
        return "" if plan.version else "Expected a version above 0, got 0."

    def applied(self, plan: Plan, step: int) -> messages.Request:
        """Notes that the ranks have switched, and returns the message that says so.

        Args:
            plan: The plan that they serve with now.
            step: The engine step at which they switched.
        """
        self._previous_version = self._applied.version
        self._applied = messages.reference(plan)
        self._applied_epoch = self._highest_epoch
        self._applied_step = step
        self._saw(plan.version)
        if self._staged is not None and messages.reference(self._staged) == self._applied:
            self._staged = None
        return messages.ack_applied(self._settle(plan), self._applied, step)

    def not_applied(self, plan: Plan, message: str, *, is_transient: bool) -> messages.Request:
        """Notes that the ranks did not switch, and returns the message that says so.

        Args:
            plan: The plan that they did not switch to.
            message: Why, for people.
            is_transient: Whether another try may succeed.
        """
        reason = "APPLY_FAILED" if is_transient else _UNACCEPTABLE
        return messages.nack(
            self._settle(plan), plan.version, reason, message, is_transient=is_transient
        )

    def staged(self, plan: Plan) -> messages.Request | None:
        """Notes that a plan is prepared, and returns the message that says so.

        Returns:
            None when it is not wanted any more.
        """
        if self._staging is not plan:
            return None
        self._staging, self._staged = None, plan
        return messages.ack_staged(self._stage_nonce, plan)

    def not_staged(
        self, plan: Plan, message: str, *, is_transient: bool
    ) -> messages.Request | None:
        """Notes that a plan could not be prepared, and returns the message that says so.

        Args:
            plan: The plan that was to be prepared.
            message: Why it is not, for people.
            is_transient: Whether another try may succeed.

        Returns:
            None when it is not wanted any more.
        """
        if self._staging is not plan:
            return None
        self._staging = None
        reason = "STAGE_FAILED" if is_transient else _UNACCEPTABLE
        return messages.nack(
            self._stage_nonce, plan.version, reason, message, is_transient=is_transient
        )

    def on_response(self, response: placement_pb2.ConnectResponse) -> tuple[Effect, ...]:
        """Returns what a message of the planner asks for, in order."""
        if response.epoch < self._highest_epoch:
            return ()
        seen = self._highest_version, self._highest_epoch
        self._highest_epoch = response.epoch
        effects = self._dispatch(response)
        if seen != (self._highest_version, self._highest_epoch):
            return Remember(), *effects
        return effects

    def _dispatch(self, response: placement_pb2.ConnectResponse) -> tuple[Effect, ...]:
        match response.WhichOneof("message"):
            case "welcome":
                return self._on_welcome(response.welcome, response.nonce)
            case "stage":
                return self._on_stage(response.stage, response.nonce)
            case "commit":
                return self._on_commit(response.commit, response.nonce)
            case "abort":
                return self._on_abort(response.abort)
            case "heartbeat":
                self._saw(response.heartbeat.head_version)
                return ()
            case "report_ack":
                return (Acked(response.report_ack.sequence),)
            case "refused":
                problem = Problem.from_message(response.refused.problem)
                return (RefusedReport(response.refused.sequence, problem),)
            case "flow":
                return (SetReportInterval(_interval_s(response.flow.report_interval_s)),)
            case "drain":
                return (DrainRequested(_interval_s(response.drain.reconnect_window_s)),)
            case _:  # a kind that a later release has added
                return ()

    def _on_welcome(self, welcome: placement_pb2.Welcome, nonce: int) -> tuple[Effect, ...]:
        verdict = welcome.verdict
        welcomed = Welcomed(
            is_deployment_known=verdict != placement_pb2.PLAN_VERDICT_DEPLOYMENT_UNKNOWN,
            is_elected_reporter=welcome.is_elected_reporter,
            heartbeat_interval_s=_interval_s(welcome.heartbeat_interval_s)
            or DEFAULT_HEARTBEAT_INTERVAL_S,
            report_interval_s=_interval_s(welcome.report_interval_s),
            max_samples_per_report=welcome.max_samples_per_report or MAX_SAMPLES_PER_REPORT,
            max_message_bytes=welcome.max_message_bytes or MAX_MESSAGE_BYTES,
        )
        if verdict != placement_pb2.PLAN_VERDICT_TAKE_THIS_PLAN:
            return (welcomed,)
        try:
            plan = self._checked(welcome.plan)
        except _PlanRefused as refusal:
            return welcomed, _refuse(nonce, welcome.plan.metadata.version, refusal)
        return welcomed, *self._adopt(plan, nonce)

    def _on_stage(self, stage: placement_pb2.Stage, nonce: int) -> tuple[Effect, ...]:
        try:
            plan = self._checked(stage.plan)
        except _PlanRefused as refusal:
            return (_refuse(nonce, stage.plan.metadata.version, refusal),)
        reference = messages.reference(plan)
        if reference == self._applied or _is(self._staged, reference):
            return (Send(messages.ack_staged(nonce, plan)),)
        self._stage_nonce = nonce
        if _is(self._staging, reference):
            return ()
        dropped = self._unstage_all()
        self._staging = plan
        # A planner that sets no deadline will say Abort; one that has died will not.
        deadline_s = _interval_s(stage.deadline_s) or MAX_INTERVAL_S
        return *dropped, StagePlan(plan, deadline_s)

    def _on_commit(self, commit: placement_pb2.Commit, nonce: int) -> tuple[Effect, ...]:
        self._saw(commit.version)
        reference = messages.PlanRef(version=commit.version, digest=commit.digest)
        if reference == self._applied:
            return (Send(messages.ack_applied(nonce, self._applied, self._applied_step)),)
        try:
            if commit.HasField("plan"):
                plan = self._checked(commit.plan)
                if messages.reference(plan) != reference:
                    raise _PlanRefused(
                        "INVALID_PLAN",
                        f"Expected the plan of version {commit.version} with digest "
                        f"{commit.digest}, got version {plan.version} with {plan.digest}.",
                    )
            else:
                plan = self._prepared(reference)
        except _PlanRefused as refusal:
            return (_refuse(nonce, commit.version, refusal),)
        return self._adopt(plan, nonce)

    def _on_abort(self, abort: placement_pb2.Abort) -> tuple[Effect, ...]:
        self._saw(abort.version)
        return self._unstage_all(lambda plan: plan.version == abort.version)

    def _unstage_all(self, is_meant: Callable[[Plan], bool] = bool) -> tuple[Effect, ...]:
        plans = [plan for plan in (self._staging, self._staged) if plan and is_meant(plan)]
        if self._staging in plans:
            self._staging = None
        if self._staged in plans:
            self._staged = None
        return tuple(Unstage(plan.version) for plan in plans)

    def _prepared(self, reference: messages.PlanRef) -> Plan:
        for plan in (self._staged, self._staging, self._adopting):
            if plan is not None and _is(plan, reference):
                return plan
        raise _PlanRefused(
            "NOT_STAGED",
            f"Expected a staged plan to commit, got version {reference.version}, which is not.",
            is_transient=True,
        )

    def _adopt(self, plan: Plan, nonce: int) -> tuple[Effect, ...]:
        if messages.reference(plan) == self._applied:
            return (Send(messages.ack_applied(nonce, self._applied, self._applied_step)),)
        reference = messages.reference(plan)
        under_way = self._adopting
        self._adopting = plan
        self._nonces[plan.version] = nonce
        if _is(under_way, reference):
            return ()
        dropped = self._unstage_all(lambda other: not _is(other, reference))
        return *dropped, AdoptPlan(plan)

    def _checked(self, message: plan_pb2.Plan) -> Plan:
        try:
            plan = Plan.from_message(message)
        except ProtocolError as error:
            raise _PlanRefused("INVALID_PLAN", str(error)) from error
        mismatch = self.mismatch(plan)
        if mismatch:
            raise _PlanRefused("INVALID_PLAN", mismatch)
        is_news = (
            plan.version > self._applied.version
            or self._highest_epoch > self._applied_epoch
            or messages.reference(plan) == self._applied
        )
        if not is_news:
            raise _PlanRefused(
                "VERSION_REGRESSION",
                f"Expected a version above {self._applied.version} in epoch "
                f"{self._highest_epoch}, got {plan.version}.",
            )
        self._saw(plan.version)
        return plan

    def _saw(self, version: int) -> None:
        self._highest_version = max(self._highest_version, version)

    def _settle(self, plan: Plan) -> int:
        # Returns the nonce that the answer about a plan belongs to; 0 when this stream has none.
        if self._adopting is not None and self._adopting.version == plan.version:
            self._adopting = None
        nonce = self._nonces.pop(plan.version, 0)
        # Plans that were overtaken on their way are never answered.
        self._nonces = {
            version: other for version, other in self._nonces.items() if version > plan.version
        }
        return nonce


def _is(plan: Plan | None, reference: messages.PlanRef) -> bool:
    return plan is not None and messages.reference(plan) == reference


def _refuse(nonce: int, version: int, refusal: _PlanRefused) -> Send:
    return Send(
        messages.nack(
            nonce, version, refusal.reason, str(refusal), is_transient=refusal.is_transient
        )
    )


def _interval_s(value: float) -> float:
    # The planner's figure times this process: one that is no number must not stop its clock.
    return min(max(value, 0.0), MAX_INTERVAL_S) if math.isfinite(value) else MAX_INTERVAL_S
