"""What an operator decides about a deployment: frozen, validated at birth, units in the names."""

from __future__ import annotations

import enum
import re
from collections import Counter
from dataclasses import dataclass, field, replace

from expertplane_server.core import limits
from expertplane_server.core.errors import InvalidArgumentError
from expertplane_server.core.parameters import (
    ForecastParameters,
    MigrationParameters,
    PlacementRules,
    RolloutParameters,
    SampleParameters,
    TriggerParameters,
    check,
)


VLLM_ASCEND = "vllm_ascend"
"""The engine that refuses duplicates on a rank, and experts that change slots inside it."""
_NAME = re.compile(r"[a-z0-9.-]{1,63}/[a-z0-9.-]{1,63}")


def check_name(name: str, *, at: str) -> str:
    """Returns a deployment's name when it is "namespace/name".

    Raises:
        InvalidArgumentError: it is not; `at` is named as the field.
    """
    if _NAME.fullmatch(name) is None:
        raise InvalidArgumentError(
            f"Expected namespace/name, both matching [a-z0-9.-]{{1,63}}, got {name[:200]!r}.",
            field=at,
            reason="INVALID_NAME",
        )
    return name


def check_cells(num_layers: int, topology: TopologySpec) -> None:
    """Refuses a plan that would take too long to make.

    Raises:
        InvalidArgumentError: it has too many slots over all layers.
    """
    cells = num_layers * topology.num_slots
    check(
        cells <= limits.MAX_CELLS,
        "topology",
        f"at most {limits.MAX_CELLS} slots over all layers",
        cells,
    )


def rules_of(engine: str, asked: PlacementRules) -> PlacementRules:
    """Returns the rules of an engine together with those that were asked for."""
    if engine != VLLM_ASCEND:
        return asked
    return replace(asked, forbids_duplicates=True, forbids_moves_inside_rank=True)


class Mode(enum.StrEnum):
    """How far the replicas of an expert may travel from their expert group."""

    AUTO = "auto"
    HIERARCHICAL = "hierarchical"
    GLOBAL = "global"
    SOFT_HIERARCHICAL = "soft-hierarchical"


class RolloutMode(enum.StrEnum):
    """What happens to a plan that is worth publishing."""

    SHADOW = "shadow"
    """Plan and score, publish nothing."""
    ADVISORY = "advisory"
    """Commit at once; members switch when they can."""
    COORDINATED = "coordinated"
    """Every member stages the plan before any may switch to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologySpec:
    """Slot s belongs to rank s // slots_per_rank, rank r to node r // ranks_per_node."""

    num_nodes: int
    ranks_per_node: int
    slots_per_rank: int
    masked_ranks: tuple[int, ...] = ()
    """Ranks that take no part, ascending; their slots hold -1."""
    rank_capacities: tuple[float, ...] = ()
    """What each rank gets done in the same time; none for ranks that are equal."""

    def __post_init__(self) -> None:
        for name in ("num_nodes", "ranks_per_node", "slots_per_rank"):
            value = getattr(self, name)
            check(value >= 1, f"topology.{name}", f"{name} to be at least 1", value)
        check(
            self.num_ranks <= limits.MAX_RANKS,
            "topology",
            f"at most {limits.MAX_RANKS} ranks",
            self.num_ranks,
        )
        check(
            self.num_slots <= limits.MAX_SLOTS,
            "topology",
            f"at most {limits.MAX_SLOTS} slots",
            self.num_slots,
        )
        self._check_ranks()

    def _check_ranks(self) -> None:
        """Checks which ranks are masked, and what the others get done."""
        at, last = "topology.masked_ranks", self.num_ranks - 1
        for before, after in zip(self.masked_ranks, self.masked_ranks[1:], strict=False):
            check(before < after, at, "ascending ranks", f"{after} after {before}")
        for rank in self.masked_ranks:
            check(0 <= rank <= last, at, f"ranks from 0 to {last}", rank)
        check(self.num_active_ranks >= 1, at, "a rank that is not masked", "none")
        at, (low, high) = "topology.rank_capacities", limits.RANK_CAPACITIES
        if self.rank_capacities:
            num = len(self.rank_capacities)
            check(num == self.num_ranks, at, f"a capacity for each of {self.num_ranks} ranks", num)
        for capacity in self.rank_capacities:
            check(low <= capacity <= high, at, f"capacities from {low:g} to {high:g}", capacity)

    @property
    def num_active_ranks(self) -> int:
        """Number of ranks that are not masked."""
        return self.num_ranks - len(self.masked_ranks)

    @property
    def active_ranks(self) -> tuple[int, ...]:
        """Ranks that are not masked, ascending."""
        masked = frozenset(self.masked_ranks)
        return tuple(rank for rank in range(self.num_ranks) if rank not in masked)

    @property
    def has_equal_capacities(self) -> bool:
        """Whether all ranks that are not masked get the same done."""
        if not self.rank_capacities:
            return True
        return len({self.rank_capacities[rank] for rank in self.active_ranks}) == 1

    @property
    def num_active_slots(self) -> int:
        """Number of slots over all ranks that are not masked."""
        return self.num_active_ranks * self.slots_per_rank

    @property
    def active_per_node(self) -> tuple[int, ...]:
        """Numbers of ranks that the nodes keep, without the nodes that keep none."""
        nodes = Counter(rank // self.ranks_per_node for rank in self.active_ranks)
        return tuple(nodes.values())

    @property
    def num_ranks(self) -> int:
        """Number of ranks over all nodes."""
        return self.num_nodes * self.ranks_per_node

    @property
    def num_slots(self) -> int:
        """Number of slots over all ranks."""
        return self.num_ranks * self.slots_per_rank


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChoice:
    """The algorithm that makes plans."""

    name: str = "robust"
    mode: Mode = Mode.AUTO
    seed: int = 0
    spill: int = 0
    """Replicas per layer that may leave their expert group's node, in soft-hierarchical mode."""
    parameters: tuple[tuple[str, str], ...] = ()
    """Parameters of the policy, name and value as in TOML, by name; the solver knows them."""
    max_moved_slots: int | None = None
    """Slots per layer whose rank may have to fetch an expert, at most; None is no limit."""

    def __post_init__(self) -> None:
        check(0 < len(self.name) <= 64, "policy.name", "1 to 64 characters", repr(self.name[:80]))
        most = limits.MAX_SLOTS if self.mode is Mode.SOFT_HIERARCHICAL else 0
        check(
            0 <= self.spill <= most,
            "policy.max_foreign_replicas",
            f"at most {most} foreign replicas in {self.mode} mode",
            self.spill,
        )
        check(
            self.max_moved_slots is None or 0 <= self.max_moved_slots <= limits.MAX_SLOTS,
            "policy.max_moved_slots_per_layer",
            f"0 to {limits.MAX_SLOTS}",
            self.max_moved_slots,
        )
        self._check_parameters()

    def _check_parameters(self) -> None:
        """Checks the sizes of the parameters; what they mean is the solver's to say."""
        at, most = "policy.parameters", limits.MAX_POLICY_PARAMETERS
        num = len(self.parameters)
        check(num <= most, at, f"at most {most} parameters", num)
        for name, value in self.parameters:
            check(0 < len(name) <= 64, at, "names of 1 to 64 characters", repr(name[:80]))
            check(len(value) <= 256, f"{at}.{name}", "at most 256 characters", len(value))


def check_shapes(
    num_experts: int, num_expert_groups: int, topology: TopologySpec, policy: PolicyChoice
) -> None:
    """Checks the relations between experts, groups, nodes and slots.

    Raises:
        InvalidArgumentError: one does not hold.
    """
    num_slots, active_per_node = topology.num_active_slots, topology.active_per_node
    check(
        num_slots >= num_experts,
        "topology",
        "at least as many slots as logical experts",
        f"{num_slots} slots and {num_experts} experts",
    )
    check(
        num_expert_groups >= 1 and num_experts % num_expert_groups == 0,
        "num_expert_groups",
        "num_logical_experts to be a multiple of num_expert_groups",
        f"{num_experts} and {num_expert_groups}",
    )
    is_by_node = policy.mode in (Mode.HIERARCHICAL, Mode.SOFT_HIERARCHICAL)
    check(
        not is_by_node or len(set(active_per_node)) == 1,
        "topology.masked_ranks",
        f"nodes to keep equally many active ranks in {policy.mode} mode",
        list(active_per_node),
    )
    check(
        not is_by_node or num_expert_groups % len(active_per_node) == 0,
        "policy.mode",
        f"num_expert_groups to be a multiple of num_nodes in {policy.mode} mode",
        f"{num_expert_groups} and {len(active_per_node)}",
    )


def check_rules(
    num_experts: int,
    num_expert_groups: int,
    topology: TopologySpec,
    policy: PolicyChoice,
    rules: PlacementRules,
) -> None:
    """Refuses rules of an engine that no placement can keep: every window would fail.

    Raises:
        InvalidArgumentError: there are too few experts to fill the slots with.
    """
    num_slots, most = topology.num_active_slots, rules.max_replicas
    check(
        most == 0 or num_experts * most >= num_slots,
        "engine.max_replicas_per_expert",
        "as many replicas of all experts as slots",
        f"{most} for each of {num_experts} experts, and {num_slots} slots",
    )
    num_nodes = _num_apart(num_expert_groups, topology, policy.mode)
    # Foreign replicas are there to fill what the experts of a node leave.
    num_open = topology.num_active_ranks * (topology.slots_per_rank - num_experts // num_nodes)
    check(
        not rules.forbids_duplicates
        or (topology.slots_per_rank <= num_experts and num_open <= policy.spill),
        "engine.forbid_duplicates_on_rank",
        f"as many experts as slots on a rank of each of {num_nodes} nodes that share them out",
        f"{num_experts} experts and {topology.slots_per_rank} slots",
    )


def _num_apart(num_expert_groups: int, topology: TopologySpec, mode: Mode) -> int:
    """Returns the number of nodes that share the experts out, 1 where any may go anywhere."""
    active_per_node = topology.active_per_node
    num_nodes = len(active_per_node)
    is_even = len(set(active_per_node)) == 1 and num_expert_groups % num_nodes == 0
    return num_nodes if is_even and mode is not Mode.GLOBAL else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentSpec:
    """One model served by one EP group."""

    layer_ids: tuple[int, ...]
    num_logical_experts: int
    topology: TopologySpec
    num_expert_groups: int = 1
    model_name: str = ""
    engine: str = ""
    policy: PolicyChoice = field(default_factory=PolicyChoice)
    trigger: TriggerParameters = field(default_factory=TriggerParameters)
    samples: SampleParameters = field(default_factory=SampleParameters)
    rules: PlacementRules = field(default_factory=PlacementRules)
    forecast: ForecastParameters = field(default_factory=ForecastParameters)
    migration: MigrationParameters = field(default_factory=MigrationParameters)
    rollout_mode: RolloutMode = RolloutMode.ADVISORY
    rollout: RolloutParameters = field(default_factory=RolloutParameters)

    def __post_init__(self) -> None:
        layers, experts = self.num_layers, self.num_logical_experts
        check(
            len(self.model_name) <= 256,
            "model_name",
            "at most 256 characters",
            len(self.model_name),
        )
        check(
            1 <= layers <= limits.MAX_LAYERS,
            "layer_ids",
            f"1 to {limits.MAX_LAYERS} layers",
            layers,
        )
        for before, after in zip(self.layer_ids, self.layer_ids[1:], strict=False):
            check(before < after, "layer_ids", "ascending ids", f"{after} after {before}")
        check(
            1 <= experts <= limits.MAX_LOGICAL_EXPERTS,
            "num_logical_experts",
            f"1 to {limits.MAX_LOGICAL_EXPERTS}",
            experts,
        )
        check_shapes(experts, self.num_expert_groups, self.topology, self.policy)
        check_rules(experts, self.num_expert_groups, self.topology, self.policy, self.engine_rules)
        check_cells(layers, self.topology)
        entries = layers * experts * self.trigger.window_samples
        check(
            entries <= limits.MAX_WINDOW_ENTRIES,
            "trigger.window_samples",
            f"at most {limits.MAX_WINDOW_ENTRIES} counts in a window",
            entries,
        )

    @property
    def num_layers(self) -> int:
        """Number of planned layers."""
        return len(self.layer_ids)

    @property
    def map_shape(self) -> tuple[int, int]:
        """Shape of `phy2log`: [num_layers, num_slots]."""
        return self.num_layers, self.topology.num_slots

    def has_same_ranks(self, other: DeploymentSpec) -> bool:
        """Tells whether a change from one to the other keeps the generation."""
        return (
            self.topology == other.topology
            and self.layer_ids == other.layer_ids
            and self.num_logical_experts == other.num_logical_experts
        )

    @property
    def engine_rules(self) -> PlacementRules:
        """What the engine does not take: its own rules and those that were asked for."""
        return rules_of(self.engine, self.rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A deployment as the store knows it.

    Attributes:
        generation: counts the topologies that it has had, from 1 on.
        head: the highest version assigned.
        committed: the highest version committed, in whatever generation.
        pause_comment: what the operator said who paused it.
    """

    name: str
    spec: DeploymentSpec
    etag: str
    generation: int = 1
    head: int = 0
    committed: int = 0
    is_paused: bool = False
    pause_comment: str = ""

    def with_head(self, version: int) -> Deployment:
        """Returns the deployment after `version` was assigned."""
        return replace(self, head=max(self.head, version))

    def with_committed(self, version: int) -> Deployment:
        """Returns the deployment after `version` was committed."""
        return replace(self, head=max(self.head, version), committed=version)
