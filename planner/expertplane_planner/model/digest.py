"""The fingerprint by which everybody recognises a map, whatever stores or carries it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from torch import Tensor


_DOMAIN = b"expertplane.phy2log.v1\0"  # a hash of anything else can never equal a map's


def digest_phy2log(phy2log: Tensor) -> str:
    """Return the sha256 of a map in lowercase hex.

    Hashed are the bytes `expertplane.phy2log.v1` and a zero byte, num_layers and num_slots as
    little-endian uint32, then the map as little-endian int32 in C order. Neither the dtype nor
    the device of the tensor matters.

    Args:
        phy2log: [num_layers, num_slots] integer, every id below 2^31.
    """
    rows = phy2log.cpu().numpy()
    num_layers, num_slots = rows.shape
    sha = hashlib.sha256(_DOMAIN)
    sha.update(num_layers.to_bytes(4, "little"))
    sha.update(num_slots.to_bytes(4, "little"))
    sha.update(rows.astype("<i4").tobytes(order="C"))
    return sha.hexdigest()
