"""Files that engines write and read: recordings of load in, placements out."""

from expertplane_client.errors import FormatError

from .layer_ids import parse_layer_ids
from .read import read_load
from .recording import Recording
from .write import write_plan_npz, write_report


__all__ = [
    "FormatError",
    "Recording",
    "parse_layer_ids",
    "read_load",
    "write_plan_npz",
    "write_report",
]
