from __future__ import annotations

import hashlib
import struct

import pytest
import torch

from expertplane_planner import digest_phy2log

from ...support import builders


MAP = torch.tensor([[0, 1, 2, 0], [2, 1, 0, 1]])
DIGEST = "b3c72283134eacd42dd9c52fc707cb0531c9179493f89423b9dce61c09622653"


def test_the_digest_is_pinned() -> None:
    """The digest of a known map never changes: stores and clients compare it."""
    assert digest_phy2log(MAP) == DIGEST
    assert builders.placement(*map(tuple, MAP.tolist())).digest() == DIGEST


def test_the_digest_hashes_the_documented_bytes() -> None:
    """Prefix, both dimensions and the map as little-endian 32-bit integers, nothing else."""
    content = b"expertplane.phy2log.v1\0" + struct.pack("<II8i", 2, 4, 0, 1, 2, 0, 2, 1, 0, 1)

    assert digest_phy2log(MAP) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64])
def test_neither_dtype_nor_layout_matters(dtype: torch.dtype) -> None:
    """A map in another dtype, or transposed in memory, has the same digest."""
    assert digest_phy2log(MAP.to(dtype)) == DIGEST
    assert digest_phy2log(MAP.t().contiguous().t()) == DIGEST


def test_the_shape_matters() -> None:
    """The same ids in another shape have another digest."""
    assert digest_phy2log(MAP.reshape(4, 2)) != DIGEST
