"""The machine that a plan is made for: nodes, ranks and slots."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from expertplane_planner.errors import InvalidTopologyError


MAX_RANKS = 4096
MAX_SLOTS = 65536
CAPACITY_RANGE = (1e-6, 1e6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Ranks on equal nodes, with equally many slots in every layer.

    Numbering is contiguous: slot p lies on rank `p // slots_per_rank`, rank r on node
    `r // ranks_per_node`. A rank that is lost keeps its number and its slots, but is masked:
    nothing is placed there. A rank that is slow has a lower capacity than others.

    Raises:
        InvalidTopologyError: A count is not positive, passes its bound (4096 ranks, 65536 slots)
            or does not divide evenly; masked ranks that do not ascend, do not exist or leave no
            rank; capacities that are not one number in [1e-6, 1e6] for every rank.
    """

    num_nodes: int
    """Domains of fast links; divides num_ranks."""

    num_ranks: int
    """Expert-parallel ranks; divides num_slots."""

    num_slots: int
    """Slots per layer over all ranks, redundant ones and those of masked ranks included."""

    masked_ranks: tuple[int, ...] = ()
    """Ranks that take no part, ascending."""

    rank_capacities: tuple[float, ...] | None = None
    """[num_ranks], what each rank gets done in the same time; only ratios matter to a plan, and
    those of masked ranks not at all. None is the same for all, 1."""

    def __post_init__(self) -> None:
        _check_positive("num_nodes", self.num_nodes)
        _check_positive("num_ranks", self.num_ranks)
        _check_positive("num_slots", self.num_slots)
        _check_bound("num_ranks", self.num_ranks, MAX_RANKS)
        _check_bound("num_slots", self.num_slots, MAX_SLOTS)
        _check_multiple("num_ranks", self.num_ranks, "num_nodes", self.num_nodes)
        _check_multiple("num_slots", self.num_slots, "num_ranks", self.num_ranks)
        object.__setattr__(self, "masked_ranks", tuple(self.masked_ranks))
        _check_masked(self.masked_ranks, self.num_ranks)
        if self.rank_capacities is not None:
            object.__setattr__(self, "rank_capacities", tuple(self.rank_capacities))
            _check_capacities(self.rank_capacities, self.num_ranks)

    @property
    def slots_per_rank(self) -> int:
        """Slots of one rank in one layer."""
        return self.num_slots // self.num_ranks

    @property
    def ranks_per_node(self) -> int:
        """Ranks of one node."""
        return self.num_ranks // self.num_nodes

    @property
    def slots_per_node(self) -> int:
        """Slots of one node in one layer, those of masked ranks included."""
        return self.num_slots // self.num_nodes

    @property
    def active_ranks(self) -> tuple[int, ...]:
        """Ranks that are not masked, ascending."""
        masked = frozenset(self.masked_ranks)
        return tuple(rank for rank in range(self.num_ranks) if rank not in masked)

    @property
    def num_active_ranks(self) -> int:
        """Ranks that are not masked."""
        return self.num_ranks - len(self.masked_ranks)

    @property
    def num_active_slots(self) -> int:
        """Slots per layer over all ranks that are not masked."""
        return self.num_active_ranks * self.slots_per_rank

    @property
    def capacities(self) -> tuple[float, ...]:
        """Capacities of the ranks that are not masked, in their order."""
        if self.rank_capacities is None:
            return (1.0,) * self.num_active_ranks
        return tuple(self.rank_capacities[rank] for rank in self.active_ranks)

    @property
    def has_equal_capacities(self) -> bool:
        """Whether all ranks that are not masked have the same capacity."""
        return len(set(self.capacities)) == 1


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise InvalidTopologyError(
            f"topology.{name}", f"Expected {name} to be positive, got {value}."
        )


def _check_bound(name: str, value: int, bound: int) -> None:
    if value > bound:
        raise InvalidTopologyError(
            f"topology.{name}", f"Expected {name} of at most {bound}, got {value}."
        )


def _check_multiple(name: str, value: int, divisor_name: str, divisor: int) -> None:
    if value % divisor:
        raise InvalidTopologyError(
            f"topology.{name}",
            f"Expected {name} to be a multiple of {divisor_name}, got {value} and {divisor}.",
        )


def _is_of(value: object, *kinds: type) -> bool:
    """Return whether a value, which somebody without types may have given, is such a number."""
    return isinstance(value, kinds) and not isinstance(value, bool)


def _check_masked(masked_ranks: tuple[int, ...], num_ranks: int) -> None:
    for rank in masked_ranks:
        if not _is_of(rank, int) or not 0 <= rank < num_ranks:
            raise InvalidTopologyError(
                "topology.masked_ranks",
                f"Expected masked ranks in [0, {num_ranks - 1}], got {rank!r}.",
            )
    for rank, following in itertools.pairwise(masked_ranks):
        if rank >= following:
            raise InvalidTopologyError(
                "topology.masked_ranks",
                f"Expected masked ranks to ascend, got {following} after {rank}.",
            )
    if len(masked_ranks) == num_ranks:
        raise InvalidTopologyError(
            "topology.masked_ranks",
            f"Expected a rank that is not masked, got all {num_ranks} masked.",
        )


def _check_capacities(capacities: tuple[float, ...], num_ranks: int) -> None:
    if len(capacities) != num_ranks:
        raise InvalidTopologyError(
            "topology.rank_capacities",
            f"Expected a capacity for each of {num_ranks} ranks, got {len(capacities)}.",
        )
    low, high = CAPACITY_RANGE
    for rank, capacity in enumerate(capacities):
        if not _is_of(capacity, int, float) or not low <= capacity <= high:
            raise InvalidTopologyError(
                "topology.rank_capacities",
                f"Expected capacities in [{low:g}, {high:g}], got {capacity!r} for rank {rank}.",
            )
