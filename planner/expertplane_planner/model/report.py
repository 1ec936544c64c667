"""How evenly a placement spreads a load, as numbers to store and show."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceReport:
    """Balancedness of a placement: mean over maximum rank load, in (0, 1], 1 is perfect."""

    balancedness: float
    """Sum over layers of mean rank load, over the sum of maximum rank load; 1.0 without load."""

    per_layer: tuple[float, ...]
    """Balancedness of each layer; 1.0 for a layer without load."""

    mean: float
    """Mean of `per_layer`, layers without load included."""

    minimum: float
    """Smallest of `per_layer`."""
