"""Synthetic load: a drifting mix of traffic domains, each with its own hot experts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .base import LoadTrace, seeded_generator
from .profiles import cap_shares, draw_profiles


if TYPE_CHECKING:
    import numpy.typing as npt

    from .config import TraceConfig


class SyntheticTrace(LoadTrace):
    """An endless stream of load samples with the statistics of recorded traffic.

    All layers follow the same mix of domains, as in recordings. Inside a domain nothing drifts;
    samples differ by the requests that happen to be under way, and drift comes from the mix.
    Same configuration and seed, same samples.

    Args:
        config: Dimensions, skew, noise and drift.
        seed: Seed of the whole trace, non-negative.

    Raises:
        InvalidInputError: The seed is negative.
    """

    def __init__(self, config: TraceConfig, seed: int) -> None:
        self.config = config
        self._rng = seeded_generator(seed)
        self.profiles = draw_profiles(config, self._rng)
        self._mix_logits = config.mix_sd * self._rng.standard_normal(config.num_domains)
        self._num_samples = 0

    def next_sample(self) -> npt.NDArray[np.int64]:
        """Return the token counts of the next sample and advance the trace.

        Returns:
            [num_layers, num_logical_experts] int64, tokens; every layer sums to
            tokens_per_sample * top_k.
        """
        if self._num_samples and self._num_samples % self.config.samples_per_mix_step == 0:
            self._drift()
        self._num_samples += 1
        requests = self._rng.multinomial(self.config.num_requests, self._sample_mix())
        share = cap_shares(self._share_of(requests), self.config.top_k)
        num_picks = self.config.tokens_per_sample * self.config.top_k
        return self._rng.multinomial(num_picks, share)

    def _drift(self) -> None:
        innovation_sd = self.config.mix_sd * np.sqrt(1 - self.config.mix_rho**2)
        innovation = innovation_sd * self._rng.standard_normal(self.config.num_domains)
        self._mix_logits = self.config.mix_rho * self._mix_logits + innovation

    def _sample_mix(self) -> npt.NDArray[np.float64]:
        jitter = self.config.mix_jitter * self._rng.standard_normal(self.config.num_domains)
        logits = self._mix_logits + jitter
        weight: npt.NDArray[np.float64] = np.exp(logits - logits.max())
        weight /= weight.sum()
        return weight

    def _share_of(self, requests: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        # The sum of n gamma(shape a) multipliers is one gamma(shape a * n): a domain costs one
        # draw per expert, however many requests it has. The common scale drops out in the cap.
        shape = 1.0 / self.config.request_cv**2
        share = np.zeros(self.profiles.shape[1:])
        for domain in np.flatnonzero(requests):
            multiplier = self._rng.standard_gamma(shape * requests[domain], share.shape)
            share += self.profiles[domain] * multiplier
        return share
