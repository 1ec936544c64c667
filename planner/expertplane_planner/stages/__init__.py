"""One step of planning per module, batched over rows, each usable alone.

Stages trust their arguments: policies and the facade check what a caller can get wrong. They stay
on the device of their input and never wait for it.
"""

from .candidates import keep_best, noisy_keys, pack_best_start
from .distinct import pack_distinct
from .pack import Packing, pack_load, pack_lpt
from .permutation import inverse_permutation
from .refine import refine_gap, refine_half_gap, refine_peak, refine_squares
from .replicate import Replication, max_copies, replicate_greedy, replicate_hybrid
from .spill import NodeReplicas, spill_replicas


__all__ = [
    "NodeReplicas",
    "Packing",
    "Replication",
    "inverse_permutation",
    "keep_best",
    "max_copies",
    "noisy_keys",
    "pack_best_start",
    "pack_distinct",
    "pack_load",
    "pack_lpt",
    "refine_gap",
    "refine_half_gap",
    "refine_peak",
    "refine_squares",
    "replicate_greedy",
    "replicate_hybrid",
    "spill_replicas",
]
