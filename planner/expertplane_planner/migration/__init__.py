"""From one placement to the next: which rank gets which pack, and which copies lead there.

Matching and edge colouring go edge by edge over small tables. They run on the host, with scipy,
layer by layer: a GPU would only wait for them.
"""

from .relabel import relabel, settle
from .schedule import schedule_transfers


__all__ = ["relabel", "schedule_transfers", "settle"]
