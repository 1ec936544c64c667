"""GetLoad's answer: what is expected, and what a placement makes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane.v1 import deployment_service_pb2 as pb
from expertplane.wire import encode_tensor
from expertplane_server.core.scoring import rank_loads


if TYPE_CHECKING:
    from expertplane_server.core.spec import TopologySpec
    from expertplane_server.runtime.jobs import Expected


def load_to(
    expected: Expected, phy2log: np.ndarray[Any, Any], topology: TopologySpec
) -> pb.GetLoadResponse:
    """Writes a forecast.

    Args:
        expected: what the forecast expects.
        phy2log: [L, P], the placement in force.
        topology: whose ranks it is for.
    """
    # Tokens are asked for, not the time that a slow rank takes for them.
    equal = replace(topology, rank_capacities=())
    ranks = np.zeros((len(phy2log), topology.num_ranks), dtype=np.float32)
    (loads,) = rank_loads(phy2log, (expected.mean,), equal)
    ranks[:, list(topology.active_ranks)] = loads
    return pb.GetLoadResponse(
        mean=encode_tensor(expected.mean),
        standard_deviation=encode_tensor(expected.standard_deviation),
        rank_load=encode_tensor(ranks),
        num_windows=expected.forecast.num_windows,
    )
