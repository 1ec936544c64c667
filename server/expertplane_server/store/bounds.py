"""How much every store remembers beside the plans."""

from __future__ import annotations


MAX_REQUESTS = 10_000
"""Request ids over all deployments; whoever repeats a call does so within minutes."""
MAX_PARKED = 16
"""Placements that one participant refuses; a planner makes no more of them in days."""
