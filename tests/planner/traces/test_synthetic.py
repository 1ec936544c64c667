"""Synthetic load behaves, and has the statistics of the recordings that it was fitted to.

A sample of 8 requests and 25,000 tokens of one domain is what the recorded windows are like.
Bounds hold the recorded value and the fitted one; seeds are fixed.
"""

from __future__ import annotations

import dataclasses
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest

from expertplane_planner import InvalidInputError
from expertplane_planner.traces import PRESETS, SyntheticTrace, TraceConfig

from .measures import contiguous_imbalance, correlation, gini, max_over_mean


SMALL = TraceConfig(num_layers=3, num_logical_experts=16, top_k=4, tokens_per_sample=500)
GLM = PRESETS["glm52"]


class _DomainTrace(SyntheticTrace):
    """A trace whose traffic all comes from one domain at a time."""

    def __init__(self, config: TraceConfig, seed: int) -> None:
        quiet = dataclasses.replace(config, mix_sd=0.0, mix_jitter=0.0)
        super().__init__(quiet, seed)

    def use(self, domain: int) -> None:
        self._mix_logits = np.where(np.arange(self.config.num_domains) == domain, 0.0, -1e9)


@pytest.fixture(scope="module")
def glm_windows() -> npt.NDArray[np.int64]:
    """[10 domains, 4 windows, 75, 256] of a recording-like trace."""
    config = dataclasses.replace(
        GLM, num_requests=8, tokens_per_sample=25_000, samples_per_mix_step=2**31
    )
    trace = _DomainTrace(config, seed=0)
    windows = []
    for domain in range(config.num_domains):
        trace.use(domain)
        windows.append(next(trace.windows(4)))
    return np.stack(windows)


def test_every_layer_sees_every_token() -> None:
    """500 tokens times 4 experts are 2000 picks in each layer of each sample."""
    window = next(SyntheticTrace(SMALL, seed=0).windows(5))

    assert window.shape == (5, 3, 16)
    assert window.dtype == np.int64
    assert (window.sum(axis=-1) == 2000).all()
    assert (window >= 0).all()


def test_the_seed_decides() -> None:
    """One seed gives one trace, another seed another."""
    one, same, other = (SyntheticTrace(SMALL, seed).next_sample() for seed in (1, 1, 2))

    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_windows_go_on_where_samples_stop() -> None:
    """Windows of two are the samples two by two, across a step of the mix."""
    config = dataclasses.replace(SMALL, samples_per_mix_step=3)
    samples, windowed = SyntheticTrace(config, seed=0), SyntheticTrace(config, seed=0).windows(2)

    for _ in range(3):
        expected = np.stack([samples.next_sample(), samples.next_sample()])
        assert np.array_equal(expected, next(windowed))


def test_an_empty_window_is_refused() -> None:
    """A window has at least one sample."""
    with pytest.raises(InvalidInputError, match=r"num_samples to be positive, got 0\."):
        next(SyntheticTrace(SMALL, seed=0).windows(0))


def test_a_negative_seed_is_refused() -> None:
    """A seed is a non-negative integer."""
    with pytest.raises(InvalidInputError, match=r"seed to be non-negative, got -1\."):
        SyntheticTrace(SMALL, seed=-1)


def test_noise_follows_requests_not_tokens() -> None:
    """With c.v. 0.85 and 100 requests an expert's share varies by 8.5 percent."""
    config = dataclasses.replace(
        SMALL, domain_sds=(0.0,), base_sd=0.0, cold_fraction=0.0, layer_sd=0.0, num_requests=100
    )
    for tokens in (10**6, 10**8):
        trace = SyntheticTrace(dataclasses.replace(config, tokens_per_sample=tokens), seed=0)

        window = next(trace.windows(200)).astype(np.float64)

        spread = (window.std(axis=0) / window.mean(axis=0)).mean()
        assert spread == pytest.approx(0.085, rel=0.1)


def test_the_mix_drifts_at_its_own_pace() -> None:
    """Samples of one mix step are alike, samples ten steps apart much less so."""
    config = dataclasses.replace(
        GLM, num_layers=4, num_requests=4096, samples_per_mix_step=4, mix_rho=0.5, mix_jitter=0.0
    )
    samples = next(SyntheticTrace(config, seed=1).windows(44))

    within = correlation(samples[0], samples[3]).mean()
    apart = correlation(samples[0], samples[40]).mean()

    assert within > 0.98
    assert apart < 0.9


def test_skew_is_that_of_the_recording(glm_windows: npt.NDArray[np.int64]) -> None:
    """Hottest over mean expert 9.4 (q90 17.3) and Gini .41 recorded; 9.8, 20.7 and .43 fitted."""
    skew = max_over_mean(glm_windows)

    assert 8.8 < skew.mean() < 10.6
    assert 6.5 < np.median(skew) < 8.3
    assert 16.0 < np.quantile(skew, 0.9) < 22.0
    assert 0.39 < gini(glm_windows).mean() < 0.45


def test_domains_differ_as_recorded(glm_windows: npt.NDArray[np.int64]) -> None:
    """Correlation .81 inside a domain and .12 between domains recorded; .83 and .14 fitted."""
    within = correlation(glm_windows[:, :1], glm_windows[:, 1:])
    across = [correlation(a[0], b[0]).mean() for a, b in combinations(glm_windows, 2)]

    assert 0.77 < within.mean() < 0.86
    assert 0.09 < np.mean(across) < 0.18


def test_pooled_domains_are_flatter(glm_windows: npt.NDArray[np.int64]) -> None:
    """All domains together: hottest over mean 3.4 recorded, 3.6 fitted; Gini .22 recorded."""
    share = glm_windows / glm_windows.sum(axis=-1, keepdims=True)
    pooled = share.mean(axis=(0, 1))

    assert 3.1 < max_over_mean(pooled).mean() < 4.0
    assert 0.18 < gini(pooled).mean() < 0.28


def test_expert_groups_run_hot_together() -> None:
    """Narrow DeepSeek-V3 traffic on 32 contiguous ranks: 2.6 to 3.0 recorded without a plan."""
    config = dataclasses.replace(PRESETS["dsv3"], num_requests=4096, tokens_per_sample=65_536)
    narrowest = config.num_domains - 1
    shuffled = np.random.default_rng(0).permutation(256)
    samples = []
    for seed in (0, 1, 2):
        trace = _DomainTrace(config, seed)
        trace.use(narrowest)
        samples.append(trace.next_sample())
    counts = np.stack(samples)

    contiguous = contiguous_imbalance(counts, 32).mean()

    assert 2.5 < contiguous < 3.1
    assert 1.55 < contiguous_imbalance(counts, 8).mean() < 2.07
    assert contiguous_imbalance(counts[..., shuffled], 32).mean() < contiguous - 0.25
    assert 9.0 < max_over_mean(counts).mean() < 13.0
