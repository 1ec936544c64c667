"""The digest that names the content of a plan."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import numpy as np


DOMAIN = b"expertplane.phy2log.v1\0"


def digest_phy2log(phy2log: np.ndarray[Any, Any]) -> str:
    """Returns the lowercase hex sha256 that identifies a placement.

    Args:
        phy2log: [num_layers, num_slots], any integer type; the logical expert of every slot,
            -1 on masked ranks.
    """
    num_layers, num_slots = phy2log.shape
    content = np.ascontiguousarray(phy2log, dtype="<i4").tobytes()
    return hashlib.sha256(DOMAIN + struct.pack("<II", num_layers, num_slots) + content).hexdigest()
