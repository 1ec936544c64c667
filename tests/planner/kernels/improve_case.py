"""Layers to search from a placement in force, and what is found there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from expertplane_planner import Placement, Topology
from expertplane_planner.kernels.host_improve import improve_by_risk
from expertplane_planner.kernels.host_tables import Bounds, Search

from ...support import reference_improve as reference


@dataclass(frozen=True, kw_only=True)
class Case:
    """Some layers on one machine, and where their search starts."""

    layers: list[reference.Layer]
    rows: list[list[int]]
    bounds: reference.Bounds
    max_steps: int
    dtype: type = np.float64

    def found(self, improve: Any = improve_by_risk) -> Search:
        """Return what a kernel finds, that of the host unless another one is given."""
        first, bounds, num_layers = self.layers[0], self.bounds, len(self.layers)
        covariance = torch.tensor([layer.covariance for layer in self.layers], dtype=torch.float64)
        found: Search = improve(
            torch.tensor([layer.mean for layer in self.layers], dtype=torch.float64),
            covariance.to(torch.float32 if self.dtype is np.float32 else torch.float64),
            torch.tensor([layer.home for layer in self.layers]),
            torch.tensor(first.slowness, dtype=torch.float64),
            torch.tensor(first.node),
            torch.tensor(self.rows),
            torch.tensor([layer.origin for layer in self.layers]),
            torch.arange(num_layers),
            risk=first.risk,
            max_steps=self.max_steps,
            bounds=Bounds(
                max_moved=np.full(num_layers, bounds.max_moved),
                max_count=bounds.max_count,
                tolerance=bounds.tolerance,
                price=np.full(num_layers, bounds.price),
            ),
        )
        return found

    def moved_slots(self, layer: int, row: list[int]) -> int:
        """Return the moved slots of a row as `Placement` counts them."""
        first = self.layers[layer]
        num_experts, num_ranks = len(first.mean), len(first.slowness)
        per_rank = len(row) // num_ranks
        # Ranks more that hold every expert, so that an origin that lost some is a placement too.
        spare = [e % num_experts for e in range(-(-num_experts // per_rank) * per_rank)]
        placements = []
        for held in ([*row, *spare], [*first.origin, *spare]):
            packs = [held[at : at + per_rank] for at in range(0, len(held), per_rank)]
            topology = Topology(
                num_nodes=1,
                num_ranks=len(packs),
                num_slots=len(held),
                masked_ranks=tuple(r for r, pack in enumerate(packs) if -1 in pack),
            )
            placements.append(Placement(torch.tensor([held]), num_experts, topology))
        return int(placements[0].moved_slots(placements[1])[0])


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw small layers of random amounts, so that hardly any two moves gain alike."""
    num_nodes = draw(st.integers(1, 2))
    num_ranks = num_nodes * draw(st.integers(1 if num_nodes > 1 else 2, 5 // num_nodes))
    per_rank = draw(st.integers(1, 4))
    num_slots = num_ranks * per_rank
    num_experts = draw(st.integers(min(3, num_slots), min(12, num_slots)))
    is_tied = num_nodes == 2 and num_experts % 2 == 0 and draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    is_uneven = draw(st.booleans())
    slowness = rng.uniform(0.5, 2.0, num_ranks) if is_uneven else np.ones(num_ranks)
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    risk = draw(st.sampled_from([0.0, 1.0, 2.6]))
    layers, rows = [], []
    for _ in range(draw(st.integers(1, 3))):
        half = rng.permuted(np.arange(num_experts) % 2)
        home = half if is_tied else np.full(num_experts, -1)
        row = row_of(rng, num_nodes if is_tied else 1, num_slots, home)
        origin = list(row)
        kind = draw(st.sampled_from(["start", "other", "lost"]))
        if kind != "start":
            for slot in rng.integers(0, num_slots, draw(st.integers(1, num_slots))).tolist():
                origin[slot] = int(rng.integers(num_experts))
        if kind == "lost":
            rank = int(rng.integers(num_ranks))
            origin[rank * per_rank : (rank + 1) * per_rank] = [-1] * per_rank
        factor = rng.normal(size=(num_experts, 3)) * rng.uniform(0.0, 0.05)
        covariance = factor @ factor.T + np.diag(rng.uniform(0, 0.002, num_experts))
        mean = rng.gamma(0.7, size=num_experts) + 1e-3
        layers.append(
            reference.Layer(
                mean=(mean / mean.sum()).tolist(),
                covariance=covariance.astype(dtype).astype(float).tolist(),
                slowness=slowness.tolist(),
                node=(np.arange(num_ranks) * num_nodes // num_ranks).tolist(),
                home=home.tolist(),
                origin=origin,
                risk=risk,
            )
        )
        rows.append(row)
    return Case(
        layers=layers,
        rows=rows,
        bounds=reference.Bounds(
            max_moved=draw(st.integers(0, num_slots)),
            max_count=draw(st.integers(1, num_ranks)),
            tolerance=draw(st.sampled_from([1e-6, 1e-5, 0.03])),
            price=draw(st.sampled_from([0.0, 0.0, 0.02])),
        ),
        max_steps=draw(st.sampled_from([1, 5, 12])),
        dtype=dtype,
    )


def row_of(rng: Any, num_nodes: int, num_slots: int, home: Any) -> list[int]:
    """Return a row in which every expert has a slot at home, the rest at random."""
    size = num_slots // num_nodes
    row: list[int] = []
    for node in range(num_nodes):
        own = np.flatnonzero((home == node) | (home < 0))
        extra = rng.integers(0, len(home), size - len(own))
        if num_nodes > 1 and rng.random() < 0.5:
            extra = rng.choice(own, size - len(own))
        row += rng.permuted(np.concatenate([own, extra])).tolist()
    return row
