"""From a checked message to samples: does the report fit the deployment, and what did it count?"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane_server.core.errors import FailedPreconditionError, InvalidArgumentError
from expertplane_server.core.events import LoadKind, LoadReport, LoadScope
from expertplane_server.core.placements import start_placement
from expertplane_server.core.samples import Counts, Sampler, physical_to_logical


if TYPE_CHECKING:
    from expertplane_server.core.effects import SampleFate
    from expertplane_server.core.members import Member, Membership
    from expertplane_server.core.plan import Plan
    from expertplane_server.core.spec import DeploymentSpec


_KNOWN_PLANS = 16
"""Plans whose maps are kept for physical counts that were measured under them."""


class LoadIntake:
    """Takes load reports and hands out closed samples of logical load.

    Attributes:
        initial: [L, P] int32, the placement of version 0.
    """

    def __init__(self, spec: DeploymentSpec) -> None:
        self._spec = spec
        self._sampler = Sampler(spec)
        self._maps: OrderedDict[int, Plan] = OrderedDict()
        self.initial: np.ndarray[Any, Any] = start_placement(spec)

    def change(self, spec: DeploymentSpec) -> int:
        """Goes on under another spec, and returns the number of samples that this ends.

        Maps are kept while they have their shape.
        """
        before, self._spec = self._spec, spec
        is_same_shape = (
            spec.map_shape == before.map_shape
            and spec.num_logical_experts == before.num_logical_experts
        )
        if not is_same_shape:
            self._maps.clear()
            self.initial = start_placement(spec)
        return self._sampler.change(spec)

    def learn_plan(self, plan: Plan) -> None:
        """Keeps a plan's map, in bounded memory, for counts measured under it."""
        self._maps[plan.version] = plan
        while len(self._maps) > _KNOWN_PLANS:
            self._maps.popitem(last=False)

    def take(
        self, report: LoadReport, member: Member, members: Membership, now_s: float
    ) -> list[SampleFate]:
        """Adds a report and returns the fates of the samples that were dropped for it.

        Raises:
            ServiceError: the report does not fit the deployment, its sender, or what others report
                for the same steps. Nothing has changed then.
        """
        if report.scope is LoadScope.DEPLOYMENT and members.elected() != report.stream:
            raise FailedPreconditionError(
                "Expected DEPLOYMENT scope from the elected reporter alone.",
                field="load_report.scope",
                reason="NOT_ELECTED",
            )
        self._check_shape(report, member)
        self._check_version(report, member)
        return self._sampler.add(
            report,
            ranks=member.hello.ranks,
            engine_run_id=member.hello.engine_run_id,
            to_logical=lambda report: self._to_logical(report, member),
            now_s=now_s,
        )

    def close_due(self, members: Membership, now_s: float) -> list[tuple[SampleFate, Counts]]:
        """Closes the samples that are complete or overdue: fate and [L, E] tokens of each."""
        return self._sampler.close_due(members.ranks, now_s)

    def _check_shape(self, report: LoadReport, member: Member) -> None:
        """Refuses counts that are not [K, L, E] or [K, L, slots counted]."""
        spec = self._spec
        if report.kind is LoadKind.LOGICAL:
            width = spec.num_logical_experts
        elif report.scope is LoadScope.DEPLOYMENT:
            width = spec.topology.num_slots
        else:
            width = len(member.hello.ranks) * spec.topology.slots_per_rank
        expected = (report.counts.shape[0], spec.num_layers, width)
        if report.counts.shape != expected:
            raise InvalidArgumentError(
                f"Expected shape {list(expected)}, got {list(report.counts.shape)}.",
                field="load_report.counts.shape",
            )

    def _check_version(self, report: LoadReport, member: Member) -> None:
        """Refuses physical counts that nobody can map to experts."""
        version = report.plan_version
        if report.kind is not LoadKind.PHYSICAL or version == 0:
            return
        at = "load_report.plan_version"
        if version not in self._maps:
            raise InvalidArgumentError(
                f"Expected a plan version among {[0, *self._maps]}, got {version}.",
                field=at,
                reason="UNKNOWN_PLAN_VERSION",
            )
        # After a restored backup a number may stand for something else than the member has.
        digest = self._maps[version].digest
        if member.applied.version == version and member.applied.digest != digest:
            raise InvalidArgumentError(
                f"Expected version {version} with digest {digest}, got {member.applied.digest}.",
                field=at,
                reason="DIGEST_MISMATCH",
            )

    def _to_logical(self, report: LoadReport, member: Member) -> Counts:
        """Maps a report's counts to [K, L, E] through the plan they were measured under."""
        if report.kind is LoadKind.LOGICAL:
            return np.asarray(report.counts, dtype=np.float64)
        plan = self._maps.get(report.plan_version)
        phy2log = plan.phy2log if plan is not None else self.initial
        if report.scope is LoadScope.PARTICIPANT:
            num_layers, num_ranks = len(phy2log), self._spec.topology.num_ranks
            by_rank = phy2log.reshape(num_layers, num_ranks, -1)
            phy2log = by_rank[:, list(member.hello.ranks)].reshape(num_layers, -1)
        return physical_to_logical(report.counts, phy2log, self._spec.num_logical_experts)
