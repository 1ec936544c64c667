"""From a checked message to samples: does the report fit the deployment, and what did it count?"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane_server.core.errors import FailedPreconditionError, InvalidArgumentError
from expertplane_server.core.events import LoadKind, LoadReport, LoadScope
from expertplane_server.core.samples import Counts, Sampler, physical_to_logical


if TYPE_CHECKING:
    from expertplane_server.core.effects import SampleFate
    from expertplane_server.core.members import Member, Membership
    from expertplane_server.core.spec import DeploymentSpec


_KNOWN_PLANS = 16
"""Plans whose maps are kept for physical counts that were measured under them."""


class LoadIntake:
    """Takes load reports and hands out closed samples of logical load.

    Attributes:
        initial: [L, P] int32, the placement of version 0.
    """

    def __init__(self, spec: DeploymentSpec) -> None:
        topology = spec.topology
        self._spec = spec
        self._sampler = Sampler(spec)
        self._maps: OrderedDict[int, np.ndarray[Any, Any]] = OrderedDict()
        packs = np.full((topology.num_ranks, topology.slots_per_rank), -1, dtype=np.int32)
        places = np.arange(topology.num_active_slots) % spec.num_logical_experts
        packs[list(topology.active_ranks)] = places.reshape(-1, topology.slots_per_rank)
        self.initial: np.ndarray[Any, Any] = np.broadcast_to(
            packs.reshape(-1), (spec.num_layers, topology.num_slots)
        )

    def learn_plan(self, version: int, phy2log: np.ndarray[Any, Any]) -> None:
        """Keeps a plan's map, in bounded memory, for counts measured under it."""
        self._maps[version] = phy2log
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
        self._check_version(report)
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

    def _check_version(self, report: LoadReport) -> None:
        """Refuses physical counts that nobody can map to experts."""
        is_known = report.plan_version == 0 or report.plan_version in self._maps
        if report.kind is LoadKind.PHYSICAL and not is_known:
            raise InvalidArgumentError(
                f"Expected a plan version among {[0, *self._maps]}, got {report.plan_version}.",
                field="load_report.plan_version",
                reason="UNKNOWN_PLAN_VERSION",
            )

    def _to_logical(self, report: LoadReport, member: Member) -> Counts:
        """Maps a report's counts to [K, L, E] through the plan they were measured under."""
        if report.kind is LoadKind.LOGICAL:
            return np.asarray(report.counts, dtype=np.float64)
        phy2log = self._maps.get(report.plan_version, self.initial)
        if report.scope is LoadScope.PARTICIPANT:
            num_layers, num_ranks = len(phy2log), self._spec.topology.num_ranks
            by_rank = phy2log.reshape(num_layers, num_ranks, -1)
            phy2log = by_rank[:, list(member.hello.ranks)].reshape(num_layers, -1)
        return physical_to_logical(report.counts, phy2log, self._spec.num_logical_experts)
