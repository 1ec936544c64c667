"""A recorded expert load."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane_client.errors import FormatError

from .layer_ids import MAX_LAYERS, format_layer_ids
from .numpy_file import MAX_ELEMENTS
from .rows import Rows, check_ascending, choose_rows


if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recording:
    """Tokens that were routed to every logical expert, sample by sample.

    Raises:
        FormatError: wrong dimensions or dtype, a value that is no count, or layers that do not
            fit; the message names the first offending index.
    """

    samples: NDArray[np.int64] | NDArray[np.float64]
    """[num_samples, num_layers, num_logical_experts] int64 or float64, tokens, read-only. Copied
    at birth; narrower integers and floats are widened."""

    layer_ids: tuple[int, ...]
    """The model's layer number of every row, ascending."""

    source: str
    """Where it comes from, for messages."""

    num_rows: int = 0
    """Rows of a file that has a row per hidden layer, dense layers included. 0 at birth stands
    for the number above the highest layer id."""

    notes: tuple[str, ...] = ()
    """What a reader had to leave out or could not know, a sentence each, for people."""

    def __post_init__(self) -> None:
        samples = _widened(self.samples, self.source)
        if samples.ndim != 3 or 0 in samples.shape:
            raise FormatError(
                f"Expected {self.source} to hold [samples, layers, experts] without empty "
                f"dimensions, got {list(samples.shape)}."
            )
        _check_counts(samples, self.source)
        check_ascending(self.layer_ids)
        if len(self.layer_ids) != samples.shape[1]:
            raise FormatError(
                f"Expected a layer id for each of {samples.shape[1]} layers of {self.source}, "
                f"got {len(self.layer_ids)}."
            )
        num_rows = self.num_rows or self.layer_ids[-1] + 1
        if not self.layer_ids[-1] < num_rows <= MAX_LAYERS:
            raise FormatError(
                f"Expected layer ids of {self.source} below {num_rows}, at most {MAX_LAYERS}, "
                f"got {self.layer_ids[-1]}."
            )
        samples.flags.writeable = False
        object.__setattr__(self, "samples", samples)
        object.__setattr__(self, "num_rows", num_rows)

    @property
    def num_samples(self) -> int:
        """Samples, one after the other."""
        return int(self.samples.shape[0])

    @property
    def num_layers(self) -> int:
        """Layers that are kept."""
        return int(self.samples.shape[1])

    @property
    def num_logical_experts(self) -> int:
        """Logical experts per layer."""
        return int(self.samples.shape[2])

    def weight(self) -> NDArray[np.float64]:
        """Returns the tokens summed over the samples.

        Returns:
            [num_layers, num_logical_experts] float64.
        """
        total: NDArray[np.float64] = self.samples.sum(axis=0, dtype=np.float64)
        return total

    def all_rows(self) -> NDArray[np.int64] | NDArray[np.float64]:
        """Returns the samples with a row per hidden layer, zeros where no layer was kept.

        Returns:
            [num_samples, num_rows, num_logical_experts].

        Raises:
            FormatError: too large to be written.
        """
        shape = (self.num_samples, self.num_rows, self.num_logical_experts)
        if math.prod(shape) > MAX_ELEMENTS:
            raise FormatError(
                f"Expected at most {MAX_ELEMENTS} counts of {self.source}, got shape {shape}."
            )
        every: NDArray[Any] = np.zeros(shape, dtype=self.samples.dtype)
        every[:, list(self.layer_ids)] = self.samples
        return every

    def whole_samples(self) -> NDArray[np.int64]:
        """Returns the samples as integers, for formats that know no other counts.

        Returns:
            [num_samples, num_layers, num_logical_experts].

        Raises:
            FormatError: a count is not whole.
        """
        whole = np.where(self.samples < 2.0**63, self.samples, -1).astype(np.int64)
        broken = np.argwhere(whole != self.samples)
        if broken.size:
            index = broken[0].tolist()
            raise FormatError(
                f"Expected whole token counts of {self.source}, got "
                f"{self.samples[tuple(index)]} at {index}."
            )
        return whole

    @classmethod
    def from_rows(
        cls,
        samples: NDArray[Any],
        *,
        layer_ids: Sequence[int] | None,
        source: str,
        rows: Rows = Rows.HIDDEN,
        keys: Sequence[int] = (),
        notes: Sequence[str] = (),
    ) -> Recording:
        """Returns the recording of some rows of an array.

        Args:
            samples: [num_layers, num_logical_experts] or [num_samples, num_layers,
                num_logical_experts], tokens.
            layer_ids: Rows to keep or their names, ascending, see `Rows`; None keeps all.
            source: Where the array comes from, for messages.
            rows: What the rows are.
            keys: For `Rows.KEYED`, the layer number of every row.
            notes: What the reader has to say.

        Raises:
            FormatError: as for the class, or there is no such row.
        """
        if samples.ndim not in (2, 3):
            raise FormatError(
                f"Expected {source} to hold [layers, experts] or [samples, layers, experts], "
                f"got {list(samples.shape)}."
            )
        stacked = samples if samples.ndim == 3 else samples[np.newaxis]
        choice = choose_rows(rows, stacked.shape[1], layer_ids, keys=keys, source=source)
        kept = stacked[:, list(choice.indices)]
        return cls(
            samples=kept,
            layer_ids=choice.layer_ids,
            source=source,
            num_rows=choice.num_rows or 0,
            notes=(*notes, *_remarks(kept, choice.layer_ids, rows, layer_ids)),
        )


def _remarks(
    samples: NDArray[Any], kept: tuple[int, ...], rows: Rows, chosen: Sequence[int] | None
) -> list[str]:
    remarks = []
    idle = [
        layer_id
        for layer_id, is_idle in zip(kept, (samples == 0).all(axis=(0, 2)), strict=True)
        if is_idle
    ]
    if idle:
        remarks.append(
            f"No token in layers {format_layer_ids(idle)}; if they are dense, leave them out by "
            f"their layer ids."
        )
    if rows is Rows.MOE and chosen is None:
        remarks.append(
            f"The file does not say which layers of the model its {len(kept)} rows are; without "
            f"layer ids they count from 0."
        )
    return remarks


def _widened(samples: NDArray[Any], source: str) -> NDArray[Any]:
    kind = samples.dtype.kind
    if kind == "f":
        return np.array(samples, dtype=np.float64, order="C")
    if kind not in "iu" or (
        kind == "u" and samples.size and samples.max() > np.iinfo(np.int64).max
    ):
        raise FormatError(
            f"Expected {source} to hold integers up to int64 or floats, got {samples.dtype.name}."
        )
    return np.array(samples, dtype=np.int64, order="C")


def _check_counts(samples: NDArray[Any], source: str) -> None:
    is_count = np.isfinite(samples) & (samples >= 0)
    if not is_count.all():
        index = np.argwhere(~is_count)[0].tolist()
        raise FormatError(
            f"Expected {source} to hold finite, non-negative token counts, "
            f"got {samples[tuple(index)]} at {index}."
        )
