"""The placement pattern of omni-infer: `.npy` int32 [ranks, MoE layers, experts], 1 where hosted.

The slots of a rank are its experts in ascending order, so a rank's order of slots is not kept, and
two replicas on one rank cannot be said. All ranks host equally many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane_client.errors import FormatError

from .containers import Container
from .numpy_file import npy_bytes
from .profiles import OMNI
from .rows import Rows
from .tables import PlacementFormat, PlacementTable


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .placement import PlacementMap


def _parse(pattern: NDArray[Any], source: str) -> PlacementTable:
    if pattern.ndim != 3 or 0 in pattern.shape or pattern.dtype.kind not in "iu":
        raise FormatError(
            f"Expected {source} of integers [ranks, layers, experts], got {pattern.dtype.name} "
            f"{list(pattern.shape)}."
        )
    wrong = np.argwhere((pattern != 0) & (pattern != 1))
    if wrong.size:
        index = wrong[0].tolist()
        raise FormatError(f"Expected 0 or 1 in {source}, got {pattern[tuple(index)]} at {index}.")
    num_ranks, num_layers, num_experts = pattern.shape
    num_hosted = pattern.sum(axis=2, dtype=np.int64)
    num_local = int(num_hosted[0, 0])
    uneven = np.argwhere(num_hosted != num_local)
    if uneven.size:
        rank, layer = uneven[0].tolist()
        raise FormatError(
            f"Expected {num_local} experts on every rank in every layer of {source}, as on rank 0 "
            f"in row 0, got {num_hosted[rank, layer]} on rank {rank} in row {layer}."
        )
    _, _, experts = np.nonzero(pattern.transpose(1, 0, 2))
    return PlacementTable(
        phy2log=experts.reshape(num_layers, num_ranks * num_local),
        rows=Rows.MOE,
        num_logical_experts=num_experts,
        num_ranks=num_ranks,
    )


def _encode(placement: PlacementMap) -> bytes:
    num_layers, num_ranks = placement.num_layers, placement.num_ranks or 1
    shape = (num_ranks, num_layers, placement.num_logical_experts)
    pattern = np.zeros(shape, dtype=np.int32)
    ranks = np.arange(placement.num_slots) // (placement.num_slots // num_ranks)
    pattern[ranks[np.newaxis], np.arange(num_layers)[:, np.newaxis], placement.phy2log] = 1
    return npy_bytes(pattern)


PLACEMENT = PlacementFormat(
    name="omni",
    description="omni-infer's pattern of hosted experts, .npy",
    container=Container.NPY,
    is_it=lambda pattern: True,
    parse=_parse,
    encode=_encode,
    profile=OMNI,
)
