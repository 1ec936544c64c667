"""What each engine demands of a placement, checked before its file is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from expertplane_client.errors import FormatError

from .rows import Rows


if TYPE_CHECKING:
    from .placement import PlacementMap


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProfile:
    """An engine's file and its rules."""

    name: str
    """As on the command line, such as "sglang"."""

    title: str
    """As in sentences, such as "SGLang"."""

    output_format: str
    """Its own format of placements, one of `PLACEMENT_FORMATS`."""

    rows: Rows
    """What the rows of its file are. `Rows.HIDDEN` needs the number of hidden layers."""

    is_duplicate_refused: bool = False
    """Whether two replicas of one expert on one rank are refused; needs the number of ranks."""

    max_replicas: int | None = None
    """Replicas of one expert in one layer; None without bound."""

    def check(self, placement: PlacementMap) -> None:
        """Checks what the engine would refuse, or take for something else.

        That every expert has a slot and all layers have equally many is checked where a
        `PlacementMap` is born.

        Raises:
            FormatError: the engine would refuse the placement; names layer, slots and a way out.
        """
        self._refuse_empty_slots(placement)
        if self.rows is Rows.HIDDEN and placement.num_rows is None:
            raise FormatError(
                f"Expected the number of hidden layers for {self.title}, whose file has a row for "
                f"each, got none: give layer ids and rows with {placement.source}."
            )
        if self.max_replicas is not None:
            self._refuse_many_replicas(placement, self.max_replicas)
        if self.is_duplicate_refused:
            self._refuse_duplicates(placement)

    def _refuse_empty_slots(self, placement: PlacementMap) -> None:
        empty = np.argwhere(placement.phy2log < 0)
        if empty.size:
            row, slot = empty[0].tolist()
            raise FormatError(
                f"Expected an expert in every slot for {self.title}, got none in slot {slot} of "
                f"{placement.name_layer(row)}; plan for the ranks that are left."
            )

    def _refuse_many_replicas(self, placement: PlacementMap, max_replicas: int) -> None:
        logcnt = placement.logcnt()
        many = np.argwhere(logcnt > max_replicas)
        if many.size:
            row, expert = many[0].tolist()
            raise FormatError(
                f"Expected at most {max_replicas} replicas of an expert for {self.title}, got "
                f"{logcnt[row, expert]} of expert {expert} in {placement.name_layer(row)}; plan "
                f"with fewer slots."
            )

    def _refuse_duplicates(self, placement: PlacementMap) -> None:
        num_ranks = placement.num_ranks
        if num_ranks is None:
            raise FormatError(
                f"Expected the number of ranks for {self.title}, got none with {placement.source}."
            )
        local = placement.phy2log.reshape(placement.num_layers, num_ranks, -1)
        order = np.argsort(local, axis=2, kind="stable")
        experts = np.take_along_axis(local, order, axis=2)
        twice = np.argwhere(experts[:, :, 1:] == experts[:, :, :-1])
        if twice.size:
            row, rank, position = twice[0].tolist()
            first, second = (
                int(slot) + rank * local.shape[2]
                for slot in order[row, rank, position : position + 2]
            )
            raise FormatError(
                f"Expected at most one replica of an expert on a rank for {self.title}, got "
                f"expert {placement.phy2log[row, first]} in slots {first} and {second} of rank "
                f"{rank} in {placement.name_layer(row)}; choose a policy that never puts two "
                f"replicas of an expert on one rank, such as 'balanced'."
            )


VLLM = EngineProfile(
    name="vllm", title="vLLM", output_format="vllm", rows=Rows.MOE, max_replicas=1024
)
SGLANG = EngineProfile(name="sglang", title="SGLang", output_format="sglang", rows=Rows.HIDDEN)
TRTLLM = EngineProfile(
    name="trtllm", title="TensorRT-LLM", output_format="trtllm", rows=Rows.KEYED
)
ASCEND = EngineProfile(
    name="ascend",
    title="vLLM-Ascend",
    output_format="ascend",
    rows=Rows.MOE,
    is_duplicate_refused=True,
)
OMNI = EngineProfile(
    name="omni",
    title="omni-infer",
    output_format="omni",
    rows=Rows.MOE,
    is_duplicate_refused=True,
)

_PROFILES = {profile.name: profile for profile in (VLLM, SGLANG, TRTLLM, ASCEND)}

ENGINES = tuple(_PROFILES)
"""Names that `engine_profile` knows."""


def engine_profile(name: str) -> EngineProfile:
    """Returns the profile of an engine.

    Raises:
        FormatError: there is no such engine.
    """
    profile = _PROFILES.get(name)
    if profile is None:
        raise FormatError(f"Expected an engine of {', '.join(ENGINES)}, got {name!r}.")
    return profile
