"""Token counts to load reports, in pieces that a planner reads. Does no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from expertplane.v1 import placement_service_pb2 as placement_pb2

from .errors import InputError
from .tensors import to_tensor


if TYPE_CHECKING:
    from numpy.typing import NDArray


_KINDS = MappingProxyType(
    {
        "logical": placement_pb2.LOAD_KIND_LOGICAL,
        "physical": placement_pb2.LOAD_KIND_PHYSICAL,
    }
)
_SCOPES = MappingProxyType(
    {
        "participant": placement_pb2.LOAD_SCOPE_PARTICIPANT,
        "deployment": placement_pb2.LOAD_SCOPE_DEPLOYMENT,
    }
)
_ENVELOPE_BYTES = 1024  # all of a report but its counts takes far less


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """The latest switch of the ranks from one plan to the next."""

    previous_version: int
    """The plan that they served with before; 0 is the start placement."""

    version: int
    """The plan that they serve with since."""

    step: int
    """The first engine step under it; 0 when the engine does not say."""


def load_reports(
    counts: NDArray[Any],
    *,
    first_step: int,
    steps_per_sample: int,
    kind: Literal["logical", "physical"],
    scope: Literal["participant", "deployment"],
    switch: Switch,
    max_samples: int,
    max_message_bytes: int,
) -> list[placement_pb2.LoadReport]:
    """Returns the reports of consecutive samples, without sequence numbers.

    Each names the plan that its steps were served with. A sample on both sides of the switch
    belongs to neither plan and is left out.

    Args:
        counts: [num_layers, columns] or [num_samples, num_layers, columns], tokens; columns are
            logical experts or slots, as `kind` says. Not mutated.
        first_step: Engine step that the first sample starts at.
        steps_per_sample: Engine steps in each sample.
        kind: What the columns are.
        scope: Whose tokens are counted.
        switch: The latest switch.
        max_samples: The most samples in a report.
        max_message_bytes: The most bytes in a report.

    Raises:
        InputError: wrong dimensions, dtype, kind, scope or steps, or one sample is too large.
    """
    _check_arguments(counts, first_step, steps_per_sample, kind, scope)
    samples = _narrowed(counts if counts.ndim == 3 else counts[np.newaxis])
    sample_bytes = samples[0].nbytes
    if sample_bytes + _ENVELOPE_BYTES > max_message_bytes:
        raise InputError(
            f"Expected a sample to fit into {max_message_bytes} bytes, got {sample_bytes}."
        )
    per_report = min(max_samples, (max_message_bytes - _ENVELOPE_BYTES) // sample_bytes)
    before = max(0, min(len(samples), (switch.step - first_step) // steps_per_sample))
    after = max(0, min(len(samples), -((first_step - switch.step) // steps_per_sample)))
    return [
        placement_pb2.LoadReport(
            plan_version=version,
            first_step=first_step + start * steps_per_sample,
            steps_per_sample=steps_per_sample,
            kind=_KINDS[kind],
            scope=_SCOPES[scope],
            counts=to_tensor(samples[start : min(start + per_report, end)], field="counts"),
        )
        for begin, end, version in (
            (0, before, switch.previous_version),
            (after, len(samples), switch.version),
        )
        for start in range(begin, end, per_report)
    ]


def _check_arguments(
    counts: NDArray[Any], first_step: int, steps_per_sample: int, kind: str, scope: str
) -> None:
    if counts.ndim not in (2, 3):
        raise InputError(f"Expected counts of 2 or 3 dimensions, got shape {list(counts.shape)}.")
    if first_step < 0 or steps_per_sample < 1:
        raise InputError(
            "Expected first_step not to be negative and steps_per_sample to be positive, "
            f"got {first_step} and {steps_per_sample}."
        )
    if kind not in _KINDS or scope not in _SCOPES:
        raise InputError(
            f"Expected kind to be one of {', '.join(_KINDS)} and scope one of "
            f"{', '.join(_SCOPES)}, got {kind!r} and {scope!r}."
        )
    if not counts.size:
        raise InputError(f"Expected counts to hold something, got shape {list(counts.shape)}.")


def _narrowed(samples: NDArray[Any]) -> NDArray[Any]:
    # Engines count in int64 what nearly always fits into half of it.
    limits = np.iinfo(np.int32)
    is_wide = samples.dtype.kind in "iu" and samples.dtype.itemsize > 4
    if is_wide and samples.size and limits.min <= samples.min() and samples.max() <= limits.max:
        return samples.astype(np.int32)
    return samples
