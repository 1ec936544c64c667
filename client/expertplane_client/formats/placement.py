"""A placement as files hold it: which logical expert is in which slot, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from expertplane.wire import derive_log2phy, derive_logcnt
from expertplane_client.errors import FormatError
from expertplane_client.plan import MAX_LAYERS, MAX_LOGICAL_EXPERTS, MAX_SLOTS

from .layer_ids import MAX_LAYERS as MAX_ROWS
from .rows import check_ascending


if TYPE_CHECKING:
    from numpy.typing import NDArray


MAX_LOG2PHY_ELEMENTS = 2**27
"""Bound of the derived map, which a few slots that all hold one expert could blow up."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacementMap:
    """The logical expert of every slot.

    Raises:
        FormatError: wrong dimensions, an expert that does not exist, or one without a slot; the
            message names the layer and the slot.
    """

    phy2log: NDArray[np.int64]
    """[num_layers, num_slots] int64, read-only; slot j belongs to rank j // (num_slots /
    num_ranks), -1 marks the slots of masked ranks. Copied at birth."""

    num_logical_experts: int
    """Logical experts per layer."""

    num_ranks: int | None = None
    """Expert-parallel ranks; None when the file does not say."""

    layer_ids: tuple[int, ...] = ()
    """The model's layer number of every row, ascending. None given at birth: counted from 0."""

    num_rows: int | None = None
    """Rows of a file that has a row per hidden layer; None when that is not known."""

    source: str = "the placement"
    """Where it comes from, for messages."""

    def __post_init__(self) -> None:
        _check_shape(self)
        phy2log = np.array(self.phy2log, dtype=np.int64, order="C")
        phy2log.flags.writeable = False
        object.__setattr__(self, "phy2log", phy2log)
        layer_ids = tuple(self.layer_ids) or tuple(range(phy2log.shape[0]))
        object.__setattr__(self, "layer_ids", check_ascending(layer_ids))
        _check_layers(self)
        _check_ranks(self)
        _check_experts(self)

    @property
    def num_layers(self) -> int:
        """Layers that are placed."""
        return int(self.phy2log.shape[0])

    @property
    def num_slots(self) -> int:
        """Slots per layer over all ranks."""
        return int(self.phy2log.shape[1])

    def logcnt(self) -> NDArray[np.int64]:
        """Returns the number of replicas of every logical expert.

        Returns:
            [num_layers, num_logical_experts] int64, at least 1.
        """
        return derive_logcnt(self.phy2log, self.num_logical_experts).astype(np.int64)

    def log2phy(self) -> NDArray[np.int64]:
        """Returns the slots of every logical expert.

        Returns:
            [num_layers, num_logical_experts, X] int64, ascending, padded with -1; X is the largest
            number of replicas.
        """
        return derive_log2phy(self.phy2log, self.num_logical_experts).astype(np.int64)

    def name_layer(self, row: int) -> str:
        """Returns how messages call a row: by the model's layer number, and by its own."""
        return f"layer {self.layer_ids[row]} (row {row})"


def _check_shape(placement: PlacementMap) -> None:
    phy2log = placement.phy2log
    if phy2log.dtype.kind not in "iu":
        raise FormatError(f"Expected {placement.source} of integers, got {phy2log.dtype.name}.")
    if phy2log.ndim != 2 or 0 in phy2log.shape:
        raise FormatError(
            f"Expected {placement.source} of shape [layers, slots], got {list(phy2log.shape)}."
        )
    num_layers, num_slots = phy2log.shape
    if num_layers > MAX_LAYERS or num_slots > MAX_SLOTS:
        raise FormatError(
            f"Expected {placement.source} of at most {MAX_LAYERS} layers and {MAX_SLOTS} slots, "
            f"got {num_layers} and {num_slots}."
        )
    if not 1 <= placement.num_logical_experts <= MAX_LOGICAL_EXPERTS:
        raise FormatError(
            f"Expected {placement.source} of 1 to {MAX_LOGICAL_EXPERTS} logical experts, "
            f"got {placement.num_logical_experts}."
        )


def _check_layers(placement: PlacementMap) -> None:
    layer_ids, num_rows = placement.layer_ids, placement.num_rows
    if len(layer_ids) != placement.num_layers:
        raise FormatError(
            f"Expected a layer id for each of {placement.num_layers} layers of "
            f"{placement.source}, got {len(layer_ids)}."
        )
    highest = MAX_ROWS if num_rows is None else num_rows
    if layer_ids[-1] >= highest or highest > MAX_ROWS:
        raise FormatError(
            f"Expected layer ids of {placement.source} below {highest}, at most {MAX_ROWS}, "
            f"got {layer_ids[-1]}."
        )


def _check_ranks(placement: PlacementMap) -> None:
    num_ranks = placement.num_ranks
    if num_ranks is not None and (num_ranks < 1 or placement.num_slots % num_ranks):
        raise FormatError(
            f"Expected {placement.num_slots} slots of {placement.source} to be shared evenly by "
            f"the ranks, got {num_ranks} ranks."
        )


def _check_experts(placement: PlacementMap) -> None:
    phy2log, num_experts = placement.phy2log, placement.num_logical_experts
    wrong = np.argwhere((phy2log < -1) | (phy2log >= num_experts))
    if wrong.size:
        row, slot = wrong[0].tolist()
        raise FormatError(
            f"Expected experts of {placement.source} in [0, {num_experts}), got "
            f"{phy2log[row, slot]} in slot {slot} of {placement.name_layer(row)}."
        )
    logcnt = derive_logcnt(phy2log, num_experts)
    missing = np.argwhere(logcnt == 0)
    if missing.size:
        row, expert = missing[0].tolist()
        raise FormatError(
            f"Expected {placement.source} to have a slot for every one of {num_experts} experts, "
            f"got none for expert {expert} in {placement.name_layer(row)}."
        )
    if logcnt.size * int(logcnt.max()) > MAX_LOG2PHY_ELEMENTS:
        raise FormatError(
            f"Expected {placement.source} with a sane number of replicas, got "
            f"{int(logcnt.max())} of one expert."
        )
