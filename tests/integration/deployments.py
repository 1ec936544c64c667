"""Small deployments for tests against real processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane.v1 import deployment_pb2


if TYPE_CHECKING:
    import numpy.typing as npt

NUM_LAYERS = 3
NUM_EXPERTS = 16
NUM_RANKS = 4
NUM_SLOTS = 24


def small_spec(**trigger: Any) -> deployment_pb2.DeploymentSpec:
    """Three layers of 16 experts on 24 slots of 4 ranks, a decision after every 2 samples."""
    return deployment_pb2.DeploymentSpec(
        layer_ids=range(NUM_LAYERS),
        num_logical_experts=NUM_EXPERTS,
        topology=deployment_pb2.Topology(num_nodes=1, ranks_per_node=4, slots_per_rank=6),
        # The load of these tests jumps at every window, which is none of a plan's fault.
        rollout=deployment_pb2.RolloutParameters(regression_tolerance=1e6),
        trigger=deployment_pb2.TriggerParameters(**{"window_samples": 2, **trigger}),
    )


def hot_counts(expert: int, num_samples: int = 2) -> npt.NDArray[np.int32]:
    """Load [num_samples, layers, experts] with one hot expert; each wants a plan of its own."""
    counts = np.ones((num_samples, NUM_LAYERS, NUM_EXPERTS), dtype=np.int32)
    counts[:, :, expert] = 100
    return counts
