"""A recorded expert load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane_client.errors import FormatError


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

    def __post_init__(self) -> None:
        samples = _widened(self.samples, self.source)
        if samples.ndim != 3 or 0 in samples.shape:
            raise FormatError(
                f"Expected {self.source} to hold [samples, layers, experts] without empty "
                f"dimensions, got {list(samples.shape)}."
            )
        _check_counts(samples, self.source)
        _check_ascending(self.layer_ids)
        if len(self.layer_ids) != samples.shape[1]:
            raise FormatError(
                f"Expected a layer id for each of {samples.shape[1]} layers of {self.source}, "
                f"got {len(self.layer_ids)}."
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

    def weight(self) -> NDArray[np.float64]:
        """Returns the tokens summed over the samples.

        Returns:
            [num_layers, num_logical_experts] float64.
        """
        total: NDArray[np.float64] = self.samples.sum(axis=0, dtype=np.float64)
        return total

    @classmethod
    def from_rows(
        cls, samples: NDArray[Any], *, layer_ids: Sequence[int] | None, source: str
    ) -> Recording:
        """Returns the recording of some rows of an array.

        Args:
            samples: [num_layers, num_logical_experts] or [num_samples, num_layers,
                num_logical_experts], tokens; the row index is the model's layer number.
            layer_ids: Rows to keep, ascending; None keeps all.
            source: Where the array comes from, for messages.

        Raises:
            FormatError: as for the class, or there is no such row.
        """
        if samples.ndim not in (2, 3):
            raise FormatError(
                f"Expected {source} to hold [layers, experts] or [samples, layers, experts], "
                f"got {list(samples.shape)}."
            )
        stacked = samples if samples.ndim == 3 else samples[np.newaxis]
        num_rows = stacked.shape[1]
        if layer_ids is None:
            return cls(samples=stacked, layer_ids=tuple(range(num_rows)), source=source)
        kept = _check_ascending(tuple(layer_ids))
        if kept[-1] >= num_rows:
            raise FormatError(f"Expected layers of {source} below {num_rows}, got {kept[-1]}.")
        return cls(samples=stacked[:, list(kept)], layer_ids=kept, source=source)


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


def _check_ascending(layer_ids: tuple[int, ...]) -> tuple[int, ...]:
    is_ascending = all(a < b for a, b in zip(layer_ids, layer_ids[1:], strict=False))
    if not layer_ids or layer_ids[0] < 0 or not is_ascending:
        raise FormatError(
            f"Expected layer ids, ascending and without repeats, got {list(layer_ids)}."
        )
    return layer_ids
