"""A recorded expert load."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
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

    num_rows: int | None = None
    """Rows of a file that has a row per hidden layer, dense layers included; None when the file
    did not say."""

    rows: Rows = Rows.KEYED
    """What the rows of the file are."""

    is_chosen: bool = True
    """Whether the caller chose or named the layers; otherwise all rows of the file are kept."""

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
        num_rows = self.count_rows()
        if not self.layer_ids[-1] < num_rows <= MAX_LAYERS:
            raise FormatError(
                f"Expected layer ids of {self.source} below {num_rows}, at most {MAX_LAYERS}, "
                f"got {self.layer_ids[-1]}."
            )
        samples.flags.writeable = False
        object.__setattr__(self, "samples", samples)

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

    @property
    def has_layer_numbers(self) -> bool:
        """Whether the layer ids are the model's, and not only counted from 0."""
        return self.is_chosen or self.rows in (Rows.HIDDEN, Rows.KEYED)

    def count_rows(self) -> int:
        """Returns the rows of a file with a row per hidden layer, for recordings to write.

        The number above the highest layer id where the file did not say.
        """
        return self.layer_ids[-1] + 1 if self.num_rows is None else self.num_rows

    def idle_layers(self) -> tuple[int, ...]:
        """Returns the layers, by their ids, without any token: dense ones, as a rule."""
        is_idle = (self.samples == 0).all(axis=(0, 2))
        return tuple(
            layer_id for layer_id, idle in zip(self.layer_ids, is_idle, strict=True) if idle
        )

    def weight(self) -> NDArray[np.float64]:
        """Returns the tokens summed over the samples.

        Returns:
            [num_layers, num_logical_experts] float64.
        """
        total: NDArray[np.float64] = self.samples.sum(axis=0, dtype=np.float64)
        return total

    def at_most(self, num_samples: int) -> Recording:
        """Returns the recording with neighbouring samples summed where there are more.

        Tokens are kept: the sum over the samples is the same, exactly for integers. A note tells
        what was summed.

        Args:
            num_samples: The most samples to return, at least 1.

        Raises:
            FormatError: a sum does not fit into int64.
        """
        per_sum = math.ceil(self.num_samples / num_samples)
        if per_sum == 1:
            return self
        if self.samples.dtype.kind == "i" and self.weight().max() >= 2.0**63:
            raise FormatError(
                f"Expected {self.source} to hold fewer than 2^63 tokens per expert, "
                f"got {self.weight().max():.0f}."
            )
        starts = np.arange(0, self.num_samples, per_sum)
        note = (
            f"{self.num_samples} samples, more than {num_samples}, are taken as {len(starts)}: "
            f"each the sum of up to {per_sum} neighbours."
        )
        return replace(
            self, samples=np.add.reduceat(self.samples, starts), notes=(*self.notes, note)
        )

    def all_rows(self) -> NDArray[np.int64] | NDArray[np.float64]:
        """Returns the samples with a row per hidden layer, zeros where no layer was kept.

        Returns:
            [num_samples, count_rows(), num_logical_experts].

        Raises:
            FormatError: too large to be written.
        """
        shape = (self.num_samples, self.count_rows(), self.num_logical_experts)
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
        recording = cls(
            samples=kept,
            layer_ids=choice.layer_ids,
            source=source,
            num_rows=choice.num_rows,
            rows=rows,
            is_chosen=layer_ids is not None,
        )
        return replace(recording, notes=(*notes, *_remarks(recording)))


def _remarks(recording: Recording) -> list[str]:
    remarks = []
    idle = recording.idle_layers()
    if idle:
        remarks.append(
            f"No token in layers {format_layer_ids(idle)}; if they are dense, leave them out by "
            f"their layer ids."
        )
    if recording.rows is Rows.MOE and not recording.is_chosen:
        remarks.append(
            f"The file does not say which layers of the model its {recording.num_layers} rows "
            f"are; without layer ids they count from 0."
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
