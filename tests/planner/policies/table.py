"""One row per policy; the invariants and the device tests go through all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from expertplane_planner.policies.balanced import BalancedPolicy
from expertplane_planner.policies.batched_swap import BatchedSwapPolicy
from expertplane_planner.policies.deepseek import DeepSeekPolicy
from expertplane_planner.policies.hybrid import HybridPolicy
from expertplane_planner.policies.multistart import MultistartPolicy
from expertplane_planner.policies.parallel_l2 import ParallelL2Policy
from expertplane_planner.policies.restarts import RestartsPolicy
from expertplane_planner.policies.robust import RobustPolicy


if TYPE_CHECKING:
    from collections.abc import Callable

    from expertplane_planner.policies import Policy


@dataclass(frozen=True, kw_only=True)
class Row:
    """A policy as the tests drive it, and what is true of it."""

    name: str
    make: Callable[[], Policy]

    is_random: bool = False
    """The seed decides. Its noise belongs to the position of an item and of a layer, so that
    layers are not planned independently and renamed experts are not planned alike."""

    avoids_duplicates: bool = False
    """No rank holds an expert twice while that can be."""

    is_scale_invariant: bool = False
    """No threshold in tokens: other units, by a power of two, change nothing."""

    is_unit_free: bool = True
    """Other units, by a power of two, change nothing at thousands of tokens. Not so where the
    noise of sampling counts, which is in tokens."""

    plans_on_the_sum: bool = True
    """The samples of a load count by their sum only."""

    is_exact: bool = False
    """Counts in float64: loads that differ by a token are different."""

    replicates_greedily: bool = True
    """Replicas by D'Hondt's rule, so that soft-hierarchical mode without spill counts alike."""

    refines_deepseek: bool = False
    """Starts from DeepSeek's packing and never raises its heaviest rank (in global mode)."""

    def __str__(self) -> str:
        return self.name


ROWS = (
    Row(name="deepseek", make=DeepSeekPolicy, is_scale_invariant=True, refines_deepseek=True),
    # Replicas go to what is uncertain as well as to what is hot.
    Row(
        name="robust",
        make=RobustPolicy,
        avoids_duplicates=True,
        is_unit_free=False,
        plans_on_the_sum=False,
        is_exact=True,
        replicates_greedily=False,
    ),
    Row(
        name="balanced",
        make=BalancedPolicy,
        avoids_duplicates=True,
        is_scale_invariant=True,
        is_exact=True,
    ),
    # These two keep the start of least variance or spread, whose heaviest rank may be heavier.
    Row(name="restarts", make=RestartsPolicy, is_random=True, is_exact=True),
    Row(name="multistart", make=MultistartPolicy, is_random=True, is_exact=True),
    Row(name="parallel-l2", make=ParallelL2Policy, is_random=True, refines_deepseek=True),
    Row(name="hybrid", make=HybridPolicy, replicates_greedily=False),
    Row(name="batched-swap", make=BatchedSwapPolicy, refines_deepseek=True),
)
