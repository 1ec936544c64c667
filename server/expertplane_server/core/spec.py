"""What an operator decides about a deployment: frozen, validated at birth, units in the names."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field, replace

from expertplane_server.core import limits
from expertplane_server.core.errors import InvalidArgumentError


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


def _check(holds: bool, at: str, expectation: str, got: object) -> None:
    """Raises InvalidArgumentError naming the field unless `holds`."""
    if not holds:
        raise InvalidArgumentError(f"Expected {expectation}, got {got}.", field=at)


def check_cells(num_layers: int, topology: TopologySpec) -> None:
    """Refuses a plan that would take too long to make.

    Raises:
        InvalidArgumentError: it has too many slots over all layers.
    """
    cells = num_layers * topology.num_slots
    _check(
        cells <= limits.MAX_CELLS,
        "topology",
        f"at most {limits.MAX_CELLS} slots over all layers",
        cells,
    )


class Mode(enum.StrEnum):
    """How far the replicas of an expert may travel from their expert group."""

    AUTO = "auto"
    HIERARCHICAL = "hierarchical"
    GLOBAL = "global"
    SOFT_HIERARCHICAL = "soft-hierarchical"


class RolloutMode(enum.StrEnum):
    """What happens to a plan that is worth publishing."""

    SHADOW = "shadow"
    ADVISORY = "advisory"


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologySpec:
    """Slot s belongs to rank s // slots_per_rank, rank r to node r // ranks_per_node."""

    num_nodes: int
    ranks_per_node: int
    slots_per_rank: int

    def __post_init__(self) -> None:
        for name in ("num_nodes", "ranks_per_node", "slots_per_rank"):
            value = getattr(self, name)
            _check(value >= 1, f"topology.{name}", f"{name} to be at least 1", value)
        _check(
            self.num_ranks <= limits.MAX_RANKS,
            "topology",
            f"at most {limits.MAX_RANKS} ranks",
            self.num_ranks,
        )
        _check(
            self.num_slots <= limits.MAX_SLOTS,
            "topology",
            f"at most {limits.MAX_SLOTS} slots",
            self.num_slots,
        )

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

    name: str = "deepseek"
    mode: Mode = Mode.AUTO
    seed: int = 0
    spill: int = 0
    """Replicas per layer that may leave their expert group's node, in soft-hierarchical mode."""

    def __post_init__(self) -> None:
        _check(0 < len(self.name) <= 64, "policy.name", "1 to 64 characters", repr(self.name[:80]))
        most = limits.MAX_SLOTS if self.mode is Mode.SOFT_HIERARCHICAL else 0
        _check(
            0 <= self.spill <= most,
            "policy.max_foreign_replicas",
            f"at most {most} foreign replicas in {self.mode} mode",
            self.spill,
        )


def check_shapes(
    num_experts: int, num_expert_groups: int, topology: TopologySpec, policy: PolicyChoice
) -> None:
    """Checks the relations between experts, groups, nodes and slots.

    Raises:
        InvalidArgumentError: one does not hold.
    """
    _check(
        topology.num_slots >= num_experts,
        "topology",
        "at least as many slots as logical experts",
        f"{topology.num_slots} slots and {num_experts} experts",
    )
    _check(
        num_expert_groups >= 1 and num_experts % num_expert_groups == 0,
        "num_expert_groups",
        "num_logical_experts to be a multiple of num_expert_groups",
        f"{num_experts} and {num_expert_groups}",
    )
    is_by_node = policy.mode in (Mode.HIERARCHICAL, Mode.SOFT_HIERARCHICAL)
    _check(
        not is_by_node or num_expert_groups % topology.num_nodes == 0,
        "policy.mode",
        f"num_expert_groups to be a multiple of num_nodes in {policy.mode} mode",
        f"{num_expert_groups} and {topology.num_nodes}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerParameters:
    """When a window closes, and what a plan must promise to be published."""

    window_samples: int = 16
    """Closes a window; 16 steps are enough for the mean and quick to gather."""
    max_window_s: float = 600.0
    """Closes a window that gets no samples any more."""
    min_samples: int = 1
    cooldown_s: float = 0.0
    """Least time between two published plans; 0 because `min_gain` already holds back."""
    min_gain: float = 0.01
    """Least relative reduction of the summed maximum rank load; below 1 % no move pays."""

    def __post_init__(self) -> None:
        most = limits.MAX_SAMPLES_PER_SOLVE
        at = "trigger."
        samples = self.window_samples
        _check(1 <= samples <= most, at + "window_samples", f"1 to {most}", samples)
        _check(
            1 <= self.min_samples <= samples,
            at + "min_samples",
            f"1 to window_samples ({samples})",
            self.min_samples,
        )
        _check(
            1 <= self.max_window_s <= 86400, at + "max_window_s", "1 to 86400", self.max_window_s
        )
        _check(0 <= self.cooldown_s <= 86400, at + "cooldown_s", "0 to 86400", self.cooldown_s)
        _check(0 <= self.min_gain < 1, at + "min_gain", "at least 0 and below 1", self.min_gain)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleParameters:
    """How reports of several participants become one sample."""

    deadline_s: float = 10.0
    """Closes an incomplete sample: a few report intervals, so a slow sidecar costs little."""
    min_coverage: float = 0.75
    """Share of the ranks below which an incomplete sample is no longer representative."""

    def __post_init__(self) -> None:
        at = "samples."
        _check(0.1 <= self.deadline_s <= 3600, at + "deadline_s", "0.1 to 3600", self.deadline_s)
        coverage = self.min_coverage
        _check(0 < coverage <= 1, at + "min_coverage", "above 0 and at most 1", coverage)


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
    rollout_mode: RolloutMode = RolloutMode.ADVISORY

    def __post_init__(self) -> None:
        layers, experts = self.num_layers, self.num_logical_experts
        _check(
            len(self.model_name) <= 256,
            "model_name",
            "at most 256 characters",
            len(self.model_name),
        )
        _check(
            1 <= layers <= limits.MAX_LAYERS,
            "layer_ids",
            f"1 to {limits.MAX_LAYERS} layers",
            layers,
        )
        for before, after in zip(self.layer_ids, self.layer_ids[1:], strict=False):
            _check(before < after, "layer_ids", "ascending ids", f"{after} after {before}")
        _check(
            1 <= experts <= limits.MAX_LOGICAL_EXPERTS,
            "num_logical_experts",
            f"1 to {limits.MAX_LOGICAL_EXPERTS}",
            experts,
        )
        check_shapes(experts, self.num_expert_groups, self.topology, self.policy)
        check_cells(layers, self.topology)
        entries = layers * experts * self.trigger.window_samples
        _check(
            entries <= limits.MAX_WINDOW_ENTRIES,
            "trigger.window_samples",
            f"at most {limits.MAX_WINDOW_ENTRIES} counts in a window",
            entries,
        )

    @property
    def num_layers(self) -> int:
        """Number of planned layers."""
        return len(self.layer_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A deployment as the store knows it."""

    name: str
    spec: DeploymentSpec
    etag: str
    generation: int = 1
    head: int = 0
    committed: int = 0

    def with_head(self, version: int) -> Deployment:
        """Returns the deployment after `version` was assigned and committed."""
        return replace(self, head=version, committed=version)
