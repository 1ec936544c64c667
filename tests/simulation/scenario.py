"""What a world is like: one deployment, its participants, and how much goes wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane_server.core.events import LoadKind, LoadScope
from expertplane_server.core.parameters import (
    MigrationParameters,
    PlacementRules,
    RolloutParameters,
    SampleParameters,
    TriggerParameters,
)
from expertplane_server.core.spec import DeploymentSpec, RolloutMode, TopologySpec


if TYPE_CHECKING:
    import random


NAME = "prod/v3"
BYTES_PER_EXPERT = 1000
FAULTS = (
    "lose_stream",
    "partition",
    "crash_participant",
    "crash_server",
    "pause_server",
    "take_over",
    "jump_clock",
    "break_store",
    "restore_backup",
    "restart_engine",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """The constants of a world, drawn once.

    Attributes:
        spec: of the deployment, to begin with.
        sites: ranks of each participant; together all ranks, each once.
        initial: [L, P], the start placement that participants tell; None when they tell none.
        kind: what load reports are counted by, one way for a whole world.
        scope: whose tokens they count.
        chaos_s: time during which things go wrong, in seconds.
        faults: what goes wrong, and how often, per second.
        store_fault: probability that one call of the store fails.
        refusal: probability that an engine refuses a plan for good.
        delay_s: usual time that a message travels.
        order_interval_s: usual time between two orders of operators.
        spare_slots: weight buffers of each rank, in experts; 0 is no limit.
    """

    spec: DeploymentSpec
    sites: tuple[tuple[int, ...], ...]
    initial: np.ndarray[Any, Any] | None
    kind: LoadKind
    scope: LoadScope
    chaos_s: float
    faults: tuple[tuple[str, float], ...]
    store_fault: float
    refusal: float
    delay_s: float
    order_interval_s: float
    spare_slots: int


def draw(rng: random.Random) -> Scenario:
    """Draw a world."""
    spec = _draw_spec(rng)
    kinds = [name for name in FAULTS if rng.random() < 0.5]
    return Scenario(
        spec=spec,
        sites=_draw_sites(rng, spec.topology.num_ranks),
        initial=random_placement(rng, spec) if rng.random() < 0.3 else None,
        kind=rng.choice((LoadKind.LOGICAL, LoadKind.PHYSICAL)),
        scope=rng.choice((LoadScope.PARTICIPANT, LoadScope.PARTICIPANT, LoadScope.DEPLOYMENT)),
        chaos_s=rng.uniform(20.0, 50.0),
        faults=tuple((name, rng.choice((0.02, 0.05, 0.15))) for name in kinds),
        store_fault=rng.choice((0.0, 0.0, 0.05, 0.2)),
        refusal=rng.choice((0.0, 0.05, 0.15)),
        delay_s=rng.choice((0.005, 0.05, 0.3)),
        order_interval_s=rng.choice((1.0, 4.0, 15.0)),
        spare_slots=rng.choice((0, 0, 1, 2)) if spec.migration.bytes_per_expert else 0,
    )


def _draw_spec(rng: random.Random) -> DeploymentSpec:
    num_ranks = rng.choice((2, 2, 3, 4, 6))
    num_experts = rng.randint(4, 8)
    fewest = -(-num_experts // num_ranks)
    num_nodes = 2 if num_ranks % 2 == 0 and rng.random() < 0.5 else 1
    window = rng.choice((1, 2, 4))
    return DeploymentSpec(
        layer_ids=tuple(range(3, 3 + rng.randint(1, 3))),
        num_logical_experts=num_experts,
        topology=TopologySpec(
            num_nodes=num_nodes,
            ranks_per_node=num_ranks // num_nodes,
            slots_per_rank=fewest + rng.randint(0 if fewest * num_ranks > num_experts else 1, 2),
        ),
        trigger=TriggerParameters(
            window_samples=window,
            min_samples=rng.randint(1, window),
            max_window_s=rng.choice((2.0, 8.0)),
            cooldown_s=rng.choice((0.0, 0.0, 3.0)),
            min_gain=rng.choice((0.0, 0.05)),
        ),
        samples=SampleParameters(
            deadline_s=rng.choice((0.5, 2.0)), min_coverage=rng.choice((0.5, 0.75, 1.0))
        ),
        rules=PlacementRules(forbids_duplicates=fewest + 2 <= num_experts and rng.random() < 0.2),
        migration=MigrationParameters(
            bytes_per_expert=BYTES_PER_EXPERT if rng.random() < 0.4 else 0
        ),
        rollout_mode=_draw_mode(rng),
        rollout=RolloutParameters(
            stage_deadline_s=rng.choice((1.0, 4.0, 8.0)),
            regression_tolerance=rng.choice((0.0, 0.02, 10.0)),
            hold_down_s=rng.choice((0.0, 2.0, 10.0)),
        ),
    )


def _draw_mode(rng: random.Random) -> RolloutMode:
    return rng.choices(
        (RolloutMode.COORDINATED, RolloutMode.ADVISORY, RolloutMode.SHADOW), (12, 6, 1)
    )[0]


def _draw_sites(rng: random.Random, num_ranks: int) -> tuple[tuple[int, ...], ...]:
    """Share the ranks out among two participants or more."""
    owners = list(range(rng.randint(2, num_ranks)))
    owners += [rng.choice(owners) for _ in range(num_ranks - len(owners))]
    rng.shuffle(owners)
    return tuple(
        tuple(rank for rank in range(num_ranks) if owners[rank] == owner)
        for owner in sorted(set(owners))
    )


def redrawn(rng: random.Random, spec: DeploymentSpec) -> DeploymentSpec:
    """Draw what an operator makes of a spec: another trigger, mode, or set of masked ranks."""
    turn = rng.random()
    if turn < 0.4:
        return replace(spec, trigger=replace(spec.trigger, min_gain=rng.choice((0.0, 0.02, 0.1))))
    if turn < 0.75:
        return replace(spec, rollout_mode=_draw_mode(rng))
    topology = spec.topology
    masked: tuple[int, ...] = ()
    if not topology.masked_ranks:
        masked = (rng.randrange(topology.num_ranks),)
    num_slots = (topology.num_ranks - len(masked)) * topology.slots_per_rank
    if num_slots < spec.num_logical_experts or topology.num_ranks - len(masked) < 2:
        return replace(spec, samples=replace(spec.samples, min_coverage=0.6))
    return replace(spec, topology=replace(topology, masked_ranks=masked))


def random_placement(rng: random.Random, spec: DeploymentSpec) -> np.ndarray[Any, Any]:
    """Draw a placement that holds every promise: [L, P] int32."""
    topology, num_experts = spec.topology, spec.num_logical_experts
    placement = np.full(spec.map_shape, -1, dtype=np.int32)
    active = [
        slot
        for slot in range(topology.num_slots)
        if slot // topology.slots_per_rank not in topology.masked_ranks
    ]
    for layer in range(spec.num_layers):
        # Slots in turn over a shuffled circle of experts: a rank sees none of them twice.
        experts = list(range(num_experts))
        rng.shuffle(experts)
        for turn, slot in enumerate(active):
            placement[layer, slot] = experts[turn % num_experts]
    return placement


def nudged(
    rng: random.Random, spec: DeploymentSpec, placement: np.ndarray[Any, Any], moves: int
) -> np.ndarray[Any, Any]:
    """Exchange the experts of a few slots, and start afresh where that keeps no promise."""
    nudged_map = np.array(placement, dtype=np.int32)
    slots = spec.topology.num_slots
    for _ in range(moves):
        layer = rng.randrange(spec.num_layers)
        one, other = rng.randrange(slots), rng.randrange(slots)
        row = nudged_map[layer]
        if row[one] >= 0 and row[other] >= 0:
            row[one], row[other] = row[other], row[one]
    return nudged_map if not flaw(spec, nudged_map) else random_placement(rng, spec)


def swapped(
    rng: random.Random, spec: DeploymentSpec, placement: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Exchange two experts, which every buffer has room for; the result may keep no promise."""
    exchanged = np.array(placement, dtype=np.int32)
    row = exchanged[rng.randrange(spec.num_layers)]
    one, other = rng.sample(range(spec.topology.num_slots), 2)
    row[one], row[other] = row[other], row[one]
    return exchanged


def flaw(spec: DeploymentSpec, placement: np.ndarray[Any, Any]) -> str:
    """Return which promise a placement breaks; empty when it keeps all of them."""
    topology = spec.topology
    if placement.shape != spec.map_shape:
        return f"shape {placement.shape}, not {spec.map_shape}"
    width, masked = topology.slots_per_rank, topology.masked_ranks
    for layer, row in enumerate(placement.tolist()):
        active: list[int] = []
        for rank in range(topology.num_ranks):
            pack = row[rank * width : (rank + 1) * width]
            if rank in masked:
                if any(expert != -1 for expert in pack):
                    return f"rank {rank} of layer {layer} is masked and holds {pack}"
                continue
            if spec.engine_rules.forbids_duplicates and len(set(pack)) < width:
                return f"rank {rank} of layer {layer} holds {pack}"
            active += pack
        if sorted(set(active)) != list(range(spec.num_logical_experts)):
            return f"layer {layer} holds experts {sorted(set(active))}"
    return ""
