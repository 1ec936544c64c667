"""Repair: give every expert a slot again after a rank was lost, and drop what an engine refuses.

Host code: few slots are concerned, and each choice depends on the one before it.

Legend: L layers, E logical experts, P slots, R ranks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from expertplane_planner.errors import InvalidPlacementError


if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from expertplane_planner.model.rules import EngineRules
    from expertplane_planner.model.topology import Topology

    Integers: TypeAlias = NDArray[np.int64]
    Reals: TypeAlias = NDArray[np.float64]


_NOBODY = -1


def repair(
    phy2log: Tensor, mean: Tensor, topology: Topology, rules: EngineRules, home: Tensor | None
) -> Tensor:
    """Return the map with as few slots changed as makes it a placement that keeps the rules.

    Free are, layer by layer, slots that hold nothing, those of replicas beyond
    `rules.max_replicas_per_expert` and, where the rules forbid duplicates, those of further
    replicas on a rank, the highest first in each case. Experts without any slot get one first,
    heaviest expert first: a free one, else that of a replica with the fewest tokens among experts
    that have several. What is still free goes to one expert after the other, each the heaviest of
    those that the least loaded rank with free slots can take without more than its part, if the
    lightest fill what it has free besides; the lightest of all if none can. An expert goes to a
    rank that lacks it if there is one, of those to the one with the least load, and only to its
    home; ties go to the lowest index. A placement that keeps the rules comes back as it is.

    Args:
        phy2log: [L, P] int64, -1 in slots that hold nothing.
        mean: [L, E] float64, tokens or shares to expect of each expert.
        topology: Ranks, none of them masked; at least E slots.
        rules: What the engine accepts; some placement must keep them.
        home: [L, E] int64, node that each expert is tied to; None where they are free.

    Raises:
        InvalidPlacementError: An expert finds no slot on its home, or a slot no expert.
    """
    if not rules.are_any and not bool((phy2log < 0).any()):
        counts = torch.zeros_like(mean).scatter_add_(1, phy2log, torch.ones_like(phy2log).to(mean))
        if bool((counts > 0).all()):
            return phy2log
    held = phy2log.cpu().numpy().copy()
    tokens = mean.cpu().numpy()
    node = np.arange(topology.num_slots) // topology.slots_per_node
    for layer, row in enumerate(held):
        is_open = None if home is None else home[layer].cpu().numpy()[:, None] == node
        patient = _Layer(row, tokens[layer], is_open, topology, rules)
        if not patient.is_well:
            patient.place_missing()
            patient.fill_free()
    return torch.from_numpy(held).to(phy2log.device)


class _Layer:
    """One layer under repair; changes the row that it is given."""

    def __init__(
        self,
        row: Integers,
        tokens: Reals,
        is_open: NDArray[np.bool_] | None,
        topology: Topology,
        rules: EngineRules,
    ) -> None:
        self._row, self._tokens = row, tokens
        self._is_open = is_open  # [E, P], where an expert may go
        self._per_rank = topology.slots_per_rank
        self._capacities = np.array(topology.capacities)
        self._most = rules.max_replicas_per_expert or len(row)
        self._count = np.bincount(row[row >= 0], minlength=len(tokens))
        self._forbids_duplicates = rules.forbid_duplicates
        self._free = self._slots_to_free()

    @property
    def is_well(self) -> bool:
        """Whether nothing has to change."""
        return not self._free and bool((self._count > 0).all())

    def place_missing(self) -> None:
        """Give a slot to every expert that has none."""
        missing = np.flatnonzero(self._count == 0)
        for expert in missing[np.argsort(-self._tokens[missing], kind="stable")].tolist():
            slots = self._open_of(expert, self._free)
            if not slots:
                slots = self._slots_of_donor(expert)
                self._take_from(self._best(slots, expert))
                slots = self._open_of(expert, self._free)
            self._put(expert, self._best(slots, expert))

    def fill_free(self) -> None:
        """Give what is still free to the experts that suit the ranks where it is."""
        while self._free:
            order = self._by_fit()
            # First without a second replica on a rank; where every rank has all, with one.
            ways = (self._lacking,) if self._forbids_duplicates else (self._lacking, self._open_of)
            for slots_of in ways:
                found = next((e for e in order if slots_of(e, self._free)), None)
                if found is not None:
                    self._put(found, self._best(slots_of(found, self._free), found))
                    break
            else:
                raise InvalidPlacementError(
                    "incumbent",
                    f"Expected an expert that slot {self._free[0]} may hold, got none.",
                )

    def _by_fit(self) -> list[int]:
        """Return the experts that may have a replica more, those first that suit the free slots.

        That is the heaviest replica that the least loaded rank with free slots can take without
        more than its part, if the lightest ones fill its other slots; then lighter ones, then
        heavier ones.
        """
        share = self._tokens / (self._count + 1)
        load, capacity = self._load(), self._capacities
        free = np.bincount(np.array(self._free) // self._per_rank, minlength=len(load))
        rank = int(np.where(free > 0, load, np.inf).argmin())
        part = self._tokens.sum() * capacity[rank] / capacity.sum()
        room = part - load[rank] * capacity[rank] - (free[rank] - 1) * share.min()
        fits = share <= room
        order = np.lexsort((np.arange(len(share)), np.where(fits, -share, share), ~fits))
        return [e for e in order.tolist() if self._count[e] < self._most]

    def _load(self) -> Reals:
        """Return the load of each rank over its capacity, in tokens."""
        share = np.append(self._tokens / np.maximum(self._count, 1), 0.0)  # nobody's is the last
        per_rank = share[self._row].reshape(-1, self._per_rank).sum(axis=1)
        return np.asarray(per_rank / self._capacities)

    def _slots_to_free(self) -> list[int]:
        free = []
        for slot in range(len(self._row) - 1, -1, -1):
            expert = self._row[slot]
            before = self._row[slot - slot % self._per_rank : slot]
            is_duplicate = self._forbids_duplicates and expert in before
            if expert == _NOBODY:
                free.append(slot)
            elif is_duplicate or self._count[expert] > self._most:
                self._count[expert] -= 1
                self._row[slot] = _NOBODY
                free.append(slot)
        return free[::-1]

    def _slots_of_donor(self, expert: int) -> list[int]:
        """Return the slots that one expert of several replicas can give to another."""
        can_give = [slot for slot in range(len(self._row)) if self._count[self._row[slot]] > 1]
        slots = self._open_of(expert, can_give)
        if not slots:
            raise InvalidPlacementError(
                "incumbent", f"Expected a slot for expert {expert} on its home, got none to spare."
            )
        share = [self._tokens[self._row[slot]] / self._count[self._row[slot]] for slot in slots]
        donor = self._row[slots[int(np.argmin(share))]]
        return [slot for slot in slots if self._row[slot] == donor]

    def _take_from(self, slot: int) -> None:
        self._count[self._row[slot]] -= 1
        self._row[slot] = _NOBODY
        self._free.append(slot)

    def _put(self, expert: int, slot: int) -> None:
        self._row[slot] = expert
        self._count[expert] += 1
        self._free.remove(slot)

    def _open_of(self, expert: int, slots: list[int]) -> list[int]:
        """Return the slots that an expert may go to."""
        if self._is_open is None:
            return slots
        return [slot for slot in slots if self._is_open[expert, slot]]

    def _lacking(self, expert: int, slots: list[int]) -> list[int]:
        """Return those of them on ranks that lack the expert."""
        first = self._row.reshape(-1, self._per_rank)
        holds = (first == expert).any(axis=1)
        return [slot for slot in self._open_of(expert, slots) if not holds[slot // self._per_rank]]

    def _best(self, slots: list[int], expert: int) -> int:
        """Return the slot on the rank of least load, if possible one that lacks the expert."""
        load = self._load()
        lacking = self._lacking(expert, slots) or slots
        return min(lacking, key=lambda slot: (load[slot // self._per_rank], slot))
