"""One world: models of everything around the real core, and the story from chaos to rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from expertplane.wire import digest_phy2log
from expertplane_server.core.spec import RolloutMode

from . import faults
from .invariants import Watch, expect
from .load_model import Load
from .loop import Loop
from .network import Network
from .operators import Operators, is_refusal
from .participant_model import Process, Site
from .planner_model import Planner
from .scenario import draw, flaw, random_placement, swapped
from .store_model import Disk


if TYPE_CHECKING:
    import numpy as np

    from expertplane_server.core.plan import Plan


HEARTBEAT_S = 2.0
SETTLE_S = 200.0
"""Time in which a world without faults must come to rest, in virtual seconds."""


class World:
    """A deployment, its participants, its planners, and whatever goes wrong with them.

    Attributes:
        planner: the one that owns the store; None while it is down.
        zombies: planners that have been taken over from, and do not know.
        processes: every process there ever was, by incarnation.
        is_calm: nothing goes wrong any more.
        monotonic_ahead_s: how far the planners' monotonic clock has jumped.
        wall_ahead_s: how far their wall clock has.
    """

    planner_class = Planner
    process_class = Process
    disk_class = Disk

    def __init__(self, seed: int) -> None:
        self.loop = Loop(seed)
        self.scenario = draw(self.loop.rng)
        self.heartbeat_s = HEARTBEAT_S
        self.is_calm = False
        self.monotonic_ahead_s = self.wall_ahead_s = 0.0
        self.load = Load(self.scenario)
        self.operators = Operators(self)
        self.watch = Watch(self)
        self.network = Network(self)
        self.disk = self.disk_class(self)
        self.processes: dict[str, Process] = {}
        self.zombies: list[Planner] = []
        self.planner: Planner | None = None
        self._num_planners = 0
        self.num_intruders = 0
        self.sites = [
            Site(f"site-{number}", ranks) for number, ranks in enumerate(self.scenario.sites)
        ]

    def run(self) -> None:
        """Live through the chaos, then see that everything comes to rest and works.

        Raises:
            ViolationError: an invariant does not hold.
        """
        self.loop.note("world", "begins", *_describe(self))
        self.start_planner()
        for site in self.sites:
            self.loop.after(self.loop.rng.uniform(0.0, 2.0), self.start_process, site)
        self.loop.after(1.0, self.operators.pulse)
        faults.schedule(self)
        self.loop.run(self.scenario.chaos_s)
        faults.end(self)
        self._come_to_rest()
        self._publish_again()

    # Who is alive.

    def start_planner(self) -> None:
        """Start a planner, unless there is one."""
        if self.planner is None:
            self._num_planners += 1
            self.planner = self.planner_class(self, self._num_planners)
            self.planner.start()

    def planner_died(self, planner: Planner) -> None:
        """Have another planner started for one that has died."""
        self.operators.planner_died(planner)
        if planner is self.planner:
            self.planner = None
            self.loop.after(self.loop.rng.uniform(0.2, 4.0), self.start_planner)
        elif planner in self.zombies:
            self.zombies.remove(planner)

    def start_process(self, site: Site) -> None:
        """Start a participant, whether or not one is alive."""
        site.num_starts += 1
        process = self.process_class(self, site, f"{site.name}-{site.num_starts}")
        site.process = process
        self.processes[process.incarnation] = process

    def superseded(self, process: Process) -> None:
        """Have another participant started for one that has been told to give up."""
        process.kill()
        if process.site.process is process:
            self.loop.after(1.0, self.start_process, process.site)

    # When nothing goes wrong any more.

    def _is_at_rest(self) -> bool:
        planner = self.planner
        if planner is None or not planner.is_serving or planner.group.staging_version:
            return False
        plan = planner.group.committed
        return not self.operators.open_orders and all(
            self._is_settled(site, plan) for site in self.sites
        )

    def _is_settled(self, site: Site, plan: Plan | None) -> bool:
        process = site.process
        if process is None or not process.is_alive or not process.is_welcome:
            return False
        stream = process.stream
        if stream is None or not stream.is_open or stream.planner is not self.planner:
            return False
        if plan is None or plan.digest in process.refused:
            return True
        return (process.applied.version, process.applied.digest) == (plan.version, plan.digest)

    def _come_to_rest(self) -> None:
        """I5: every live participant reaches the committed version in bounded time."""
        is_at_rest = self.loop.run(self.loop.now_s + SETTLE_S, self._is_at_rest)
        expect(is_at_rest, "I5", f"Expected rest within {SETTLE_S} s, got {self._unrest()}.")
        self.loop.note("world", "is at rest")

    def _unrest(self) -> str:
        planner = self.planner
        if planner is None or not planner.is_serving:
            return "no planner"
        group = planner.group
        served = {
            site.name: None if site.process is None else site.process.applied.version
            for site in self.sites
        }
        committed = None if group.committed is None else group.committed.version
        return (
            f"v{committed} committed, v{group.staging_version} staging, served {served}, "
            f"open orders {self.operators.open_orders}"
        )

    def _publish_again(self) -> None:
        """I5: a placement that nobody has refused is published, and served by everybody."""
        deadline_s = self.loop.now_s + SETTLE_S
        # The last parts of a chain may still come in between.
        while (wanted := self._fresh_placement()) is not None:
            answer = self._ask_for(wanted)
            if self._is_in_force(digest_phy2log(wanted)):
                return
            expect(
                self.loop.now_s < deadline_s,
                "I5",
                f"Expected to publish within {SETTLE_S} s, got {answer!r}.",
            )

    def _is_in_force(self, digest: str) -> bool:
        plan = None if self.planner is None else self.planner.group.committed
        return plan is not None and plan.digest == digest

    def _ask_for(self, wanted: np.ndarray[Any, Any]) -> object:
        """Have an operator ask for a placement, and return the answer when all is quiet again."""
        self.operators.publish(wanted)
        self._come_to_rest()
        answer = self.operators.latest_answer
        if is_refusal(answer):
            self.loop.run(self.loop.now_s + 5.0)
        return answer

    def _fresh_placement(self) -> np.ndarray[Any, Any] | None:
        """Return a placement that nothing speaks against, if there is one."""
        assert self.planner is not None
        group, rng = self.planner.group, self.loop.rng
        spec = group.deployment.spec
        if spec.rollout_mode is RolloutMode.SHADOW:
            return None
        known = {digest for process in self.processes.values() for digest in process.refused}
        known.add(digest_phy2log(group.in_force))
        for _ in range(50):
            placement = random_placement(rng, spec)
            if self.scenario.spare_slots:
                placement = swapped(rng, spec, group.in_force)
            if not flaw(spec, placement) and digest_phy2log(placement) not in known:
                return placement
        return None


def _describe(world: World) -> tuple[object, ...]:
    scenario, spec = world.scenario, world.scenario.spec
    return (
        spec.rollout_mode,
        "layers",
        spec.num_layers,
        "experts",
        spec.num_logical_experts,
        "ranks",
        spec.topology.num_ranks,
        "sites",
        scenario.sites,
        scenario.kind,
        scenario.scope,
        "faults",
        [f"{name}:{rate}" for name, rate in scenario.faults],
        "store",
        scenario.store_fault,
        "refusal",
        scenario.refusal,
        "spare",
        scenario.spare_slots,
    )
