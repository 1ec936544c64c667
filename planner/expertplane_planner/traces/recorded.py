"""Samples drawn around one recorded aggregate, for recordings that have no time axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from expertplane_planner.errors import InvalidInputError

from .base import LoadTrace, seeded_generator
from .profiles import cap_shares


if TYPE_CHECKING:
    import numpy.typing as npt


class RecordedTrace(LoadTrace):
    """An endless stream of samples whose expectation is a recorded aggregate.

    Requests differ from each other by a gamma factor per expert, tokens follow a multinomial.
    There is no drift: the recording is the only domain. Layers without recorded load stay zero.
    Same arguments, same samples.

    Args:
        weight: [num_layers, num_logical_experts], tokens, finite and non-negative. Not mutated.
        seed: Seed of the whole trace, non-negative.
        num_requests: Independent requests behind one sample; they set the noise.
        tokens_per_sample: Tokens routed during one sample; each counts top_k times in a layer.
        top_k: Experts per token.
        request_cv: Relative spread of an expert's share between requests.

    Raises:
        InvalidInputError: An argument leaves its range, or a layer has load on fewer than top_k
            experts.
    """

    def __init__(
        self,
        weight: npt.ArrayLike,
        seed: int,
        *,
        num_requests: int = 256,
        tokens_per_sample: int = 8192,
        top_k: int = 8,
        request_cv: float = 0.85,
    ) -> None:
        recorded = np.asarray(weight, dtype=np.float64)
        _check_recording(recorded, top_k)
        for name, value in (
            ("num_requests", num_requests),
            ("tokens_per_sample", tokens_per_sample),
        ):
            if value < 1:
                raise InvalidInputError(name, f"Expected {name} to be positive, got {value}.")
        if not 0.01 <= request_cv <= 3.0:
            raise InvalidInputError(
                "request_cv", f"Expected request_cv in [0.01, 3.0], got {request_cv}."
            )
        self._rng = seeded_generator(seed)
        self._gamma_shape = num_requests / request_cv**2
        self._num_picks = tokens_per_sample * top_k
        self._top_k = top_k
        self._has_load = recorded.sum(axis=1, keepdims=True) > 0
        # The multinomial needs shares where there is no load, too; the mask drops what it draws.
        self._share = cap_shares(np.where(self._has_load, recorded, 1.0), top_k)

    def next_sample(self) -> npt.NDArray[np.int64]:
        """Return the token counts of the next sample and advance the trace.

        Returns:
            [num_layers, num_logical_experts] int64, tokens; a layer with recorded load sums to
            tokens_per_sample * top_k.
        """
        multiplier = self._rng.standard_gamma(self._gamma_shape, self._share.shape)
        share = cap_shares(self._share * multiplier, self._top_k)
        picks = self._rng.multinomial(self._num_picks, share)
        return np.where(self._has_load, picks, 0)


def _check_recording(recorded: npt.NDArray[np.float64], top_k: int) -> None:
    if recorded.ndim != 2 or recorded.size == 0:
        raise InvalidInputError(
            "weight",
            "Expected weight of shape [num_layers, num_logical_experts], "
            f"got {list(recorded.shape)}.",
        )
    wrong = np.argwhere(~(np.isfinite(recorded) & (recorded >= 0)))
    if wrong.size:
        layer, expert = wrong[0]
        raise InvalidInputError(
            "weight",
            "Expected finite, non-negative token counts, "
            f"got {recorded[layer, expert]} at [{layer}, {expert}].",
        )
    num_experts = recorded.shape[1]
    if not 1 <= top_k <= num_experts:
        raise InvalidInputError("top_k", f"Expected top_k in [1, {num_experts}], got {top_k}.")
    num_loaded = (recorded > 0).sum(axis=1)
    too_few = np.flatnonzero((num_loaded > 0) & (num_loaded < top_k))
    if too_few.size:
        raise InvalidInputError(
            "weight",
            f"Expected load on at least top_k = {top_k} experts in every layer that has load, "
            f"got {num_loaded[too_few[0]]} in layer {too_few[0]}.",
        )
