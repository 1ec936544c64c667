"""One step of planning per module, batched over rows, each usable alone.

Stages trust their arguments: policies and the facade check what a caller can get wrong. They stay
on the device of their input and never wait for it.
"""

from .pack import Packing, pack_lpt
from .replicate import Replication, replicate_greedy


__all__ = ["Packing", "Replication", "pack_lpt", "replicate_greedy"]
