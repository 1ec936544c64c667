"""The caps on what the service accepts, checked before memory is allocated."""

from __future__ import annotations


MAX_LAYERS = 256
MAX_LOGICAL_EXPERTS = 4096
MAX_RANKS = 4096
MAX_SLOTS = 65536
RANK_CAPACITIES = (1e-6, 1e6)
MAX_SAMPLES_PER_REPORT = 64
MAX_SAMPLES_PER_SOLVE = 256
MAX_COUNT = 2**53
"""Largest token count: the largest integer up to which float64 is exact."""
MAX_COUNTER = 2**63 - 1
"""Largest version, epoch or step: what a signed 64-bit column holds."""
MAX_CLAIM = 2**62
"""Largest version or epoch above its own that the planner believes: one false claim must leave
room for all that comes after it."""
MAX_CONNECT_MESSAGE_BYTES = 2 * 1024 * 1024
MAX_UNARY_MESSAGE_BYTES = 64 * 1024 * 1024
MAX_SMALL_MESSAGE_BYTES = 1024 * 1024
"""Largest request without a tensor: 64 MiB of text take half a second to parse, in which the event
loop stands still."""
MAX_WINDOW_ENTRIES = 2**25
"""Token counts that a window, or the samples under way, may hold: 256 MiB of float64."""
MAX_CELLS = 2**22
"""Slots over all layers: packing is sequential in the slots, and this many take some 10 s."""
MAX_COMPUTES = 8
MAX_FORECAST_BYTES = 2**30
"""What the solver process keeps of forecasts: some 64 models of 58 layers and 256 experts."""
MAX_TRANSFERS = 2**15
"""Transfers of one plan that are handed around; longer lists are left out. Writing one this long
holds up other threads for some 30 ms; DeepSeek-V3 with 32 redundant slots has 16 704 in all."""
MAX_BYTES_PER_EXPERT = 2**40
"""So that the bytes of any migration fit into 64 bits."""
MAX_POLICY_PARAMETERS = 32
MAX_STREAMS = 8192
MAX_DEPLOYMENTS = 256
MAX_MEMBERS = 4096
MAX_OPEN_SAMPLES = 64
MAX_CLOSED_KEYS = 4096
MAX_JOURNAL = 1000
