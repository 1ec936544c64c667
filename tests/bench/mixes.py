"""Traffic to judge foresight by: drifting mixes, and what could be known of them in advance.

Two kinds. `recorded`: mixes of recorded GLM-5.2 windows; a step is so many independent requests,
each of which draws a window of its domain, and Poisson counts around their mean. `glm52` and
`dsv3`: the synthetic presets. In all of them the mix of domains is the softmax of an AR(1) process
on logits, fixed within a window but for jitter from step to step. 12 layers of each are enough.

Legend: T windows, K steps of a window, L layers, E logical experts, D domains, C components (the
things a request is one of: recorded windows, or synthetic domains).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from expertplane_planner.forecast import Prediction
from expertplane_planner.traces import PRESETS
from expertplane_planner.traces.regimes import SwitchingTrace


if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    Floats = NDArray[np.float64]


NUM_LAYERS = 12
NUM_STEPS = 16
TOKENS_PER_STEP = 8192
TOP_K = 8
MIX_SD = 1.0
RECORDED = "recorded"
KINDS = (RECORDED, "glm52", "dsv3")

_RECORDING = "data/glm52_domain_windows.npz"
_NUM_FUTURES = 4096  # mixes drawn to know the next step's; their mean is good to 1 %


@dataclass(frozen=True, slots=True)
class Regime:
    """How quickly traffic changes, and how noisy a step is."""

    name: str
    rho: float
    """Persistence of the mix's logits from window to window."""

    jitter: float
    """Standard deviation of the logits from step to step."""

    num_requests: int
    """Independent requests of a step."""


REGIMES = (
    Regime("slow", 0.97, 0.25, 512),
    Regime("mid", 0.95, 0.30, 256),
    Regime("fast", 0.90, 0.40, 128),
)


@dataclass(frozen=True, slots=True, eq=False)
class Mix:
    """A trace, and the state of the process that made it."""

    windows: Tensor
    """[T, K, L, E] int32, tokens."""

    logits: Floats
    """[T, D], of the mix of each window, without jitter."""

    components: Floats
    """[C, L, E], expected shares of a request of each component; C is a multiple of D, and the
    components of a domain are consecutive and equally frequent."""

    request_cv: float
    """Relative spread of an expert's share between requests of one component."""

    regime: Regime
    seed: int

    def foreseeable(self, window: int) -> Prediction:
        """Return the true predictive distribution of a window, given the state one window before.

        An abrupt switch is not foreseeable. Jitter and drift are sampled; what is left is exact,
        but for the cap that top-k routing sets on an expert, which binds next to never in a mix.

        Args:
            window: Its index, at least 1.
        """
        rng = np.random.default_rng((self.seed, window))
        mean, second = self._requests(_futures(self.logits[window - 1], self.regime, rng))
        C, L, E = self.components.shape
        flat = self.components.reshape(C, L * E)
        share = (mean @ flat).reshape(L, E)
        moved = (_root(second) @ flat).reshape(C, L, E).transpose(1, 2, 0)
        num_requests = self.regime.num_requests
        spread = self.request_cv**2 / num_requests * (mean @ flat**2).reshape(L, E)
        # Shares are divided by their sum, which varies with them.
        own = spread[:, :, None] * np.eye(E)
        own -= share[:, :, None] * spread[:, None, :] + spread[:, :, None] * share[:, None, :]
        own += share[:, :, None] * share[:, None, :] * spread.sum(axis=1)[:, None, None]
        num_picks = TOKENS_PER_STEP * TOP_K
        own += (share[:, :, None] * (np.eye(E) - share[:, None, :])) / num_picks
        covariance = moved @ moved.transpose(0, 2, 1) + own
        scale = torch.full((L,), float(num_picks), dtype=torch.float64)
        return Prediction(torch.from_numpy(share), torch.from_numpy(covariance), scale)

    def _requests(self, mix: Floats) -> tuple[Floats, Floats]:
        """Return mean [C] and covariance [C, C] of the part each component has in a step."""
        per_domain = len(self.components) // mix.shape[1]
        part = np.repeat(mix, per_domain, axis=1) / per_domain
        mean = part.mean(axis=0)
        drift = np.cov(part.T, bias=True)
        drawn = (np.diag(mean) - part.T @ part / len(part)) / self.regime.num_requests
        return mean, drift + drawn


def make_mix(
    kind: str,
    regime: Regime,
    seed: int,
    *,
    num_windows: int,
    switch_at: int | None = None,
    fixtures: Path | None = None,
) -> Mix:
    """Return a trace of a kind; the same arguments give the same one.

    Args:
        kind: One of `KINDS`.
        regime: Drift and noise.
        seed: Non-negative.
        num_windows: Windows of `NUM_STEPS` steps.
        switch_at: The first window after the mix's logits change their sign, if they do.
        fixtures: Folder of recordings, for `RECORDED`.
    """
    if kind == RECORDED:
        assert fixtures is not None
        return _recorded(regime, seed, num_windows, switch_at, fixtures)
    return _synthetic(kind, regime, seed, num_windows, switch_at)


def _recorded(
    regime: Regime, seed: int, num_windows: int, switch_at: int | None, fixtures: Path
) -> Mix:
    with np.load(fixtures / _RECORDING) as recording:
        counts = recording["counts"]
    layers = np.linspace(3, counts.shape[2] - 6, NUM_LAYERS).astype(int)
    counts = counts[:, :, layers].astype(np.float64)
    D, per_domain, L, E = counts.shape
    components = (counts / counts.sum(axis=-1, keepdims=True)).reshape(-1, L, E)
    rng = np.random.default_rng(seed)
    logits = _drift(regime, D, num_windows, switch_at, rng)
    jitter = regime.jitter * rng.standard_normal((num_windows, NUM_STEPS, D))
    mix = np.repeat(_softmax(logits[:, None] + jitter), per_domain, axis=-1) / per_domain
    requests = rng.multinomial(regime.num_requests, mix) / regime.num_requests
    share = (requests @ components.reshape(-1, L * E)).reshape(num_windows, NUM_STEPS, L, E)
    windows = rng.poisson(TOKENS_PER_STEP * TOP_K * share).astype(np.int32)
    return Mix(torch.from_numpy(windows), logits, components, 0.0, regime, seed)


def _synthetic(
    preset: str, regime: Regime, seed: int, num_windows: int, switch_at: int | None
) -> Mix:
    config = dataclasses.replace(
        PRESETS[preset],
        num_layers=NUM_LAYERS,
        num_requests=regime.num_requests,
        mix_rho=regime.rho,
        mix_sd=MIX_SD,
        mix_jitter=regime.jitter,
        samples_per_mix_step=NUM_STEPS,
    )
    first = NUM_STEPS * (num_windows if switch_at is None else switch_at)
    trace = _OpenTrace(config, seed, switch_at_sample=first)
    windows = np.empty((num_windows, NUM_STEPS, NUM_LAYERS, config.num_logical_experts), np.int32)
    logits = np.empty((num_windows, config.num_domains))
    for index, window in zip(range(num_windows), trace.windows(NUM_STEPS), strict=False):
        windows[index] = window
        logits[index] = trace.mix_logits
    return Mix(torch.from_numpy(windows), logits, trace.profiles, config.request_cv, regime, seed)


class _OpenTrace(SwitchingTrace):
    """A trace that shows the state of its mix."""

    @property
    def mix_logits(self) -> Floats:
        """[D]."""
        return self._mix_logits


def _drift(
    regime: Regime,
    num_domains: int,
    num_windows: int,
    switch_at: int | None,
    rng: np.random.Generator,
) -> Floats:
    logits = np.empty((num_windows, num_domains))
    logits[0] = MIX_SD * rng.standard_normal(num_domains)
    for index in range(1, num_windows):
        before = -logits[index - 1] if index == switch_at else logits[index - 1]
        logits[index] = _next(before, regime, rng)
    return logits


def _next(logits: Floats, regime: Regime, rng: np.random.Generator) -> Floats:
    innovation_sd = MIX_SD * np.sqrt(1 - regime.rho**2)
    drifted: Floats = regime.rho * logits + innovation_sd * rng.standard_normal(logits.shape)
    return drifted


def _futures(logits: Floats, regime: Regime, rng: np.random.Generator) -> Floats:
    """Return mixes [_NUM_FUTURES, D] of steps of the next window."""
    drifted = _next(np.broadcast_to(logits, (_NUM_FUTURES, len(logits))), regime, rng)
    return _softmax(drifted + regime.jitter * rng.standard_normal(drifted.shape))


def _softmax(logits: Floats) -> Floats:
    weight = np.exp(logits - logits.max(axis=-1, keepdims=True))
    mix: Floats = weight / weight.sum(axis=-1, keepdims=True)
    return mix


def _root(covariance: Floats) -> Floats:
    """Return the symmetric root of a matrix that is positive semidefinite but for rounding."""
    values, vectors = np.linalg.eigh(covariance)
    root: Floats = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    return root
