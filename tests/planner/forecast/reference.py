"""A slow forecast in plain numpy: one layer, one sample, one pair of experts at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt


if TYPE_CHECKING:
    from expertplane_planner.forecast import ForecastParams


Array = npt.NDArray[np.float64]


@dataclass
class Layer:
    """What is known of one layer; every window it had load in, newest last."""

    shares: list[list[Array]] = field(default_factory=list)
    tokens: list[list[float]] = field(default_factory=list)
    moments: list[Array] = field(default_factory=list)
    discrepancies: list[float] = field(default_factory=list)
    num_recent: int = 0

    def recent(self) -> Array:
        steps = [step for window in self.shares[-self.num_recent :] for step in window]
        return np.asarray(np.mean(steps, axis=0))

    def long_run(self, decay: float) -> Array:
        return np.asarray(weighted([np.mean(window, axis=0) for window in self.shares], decay))


def weighted(values: list[Any], decay: float) -> Any:
    """Return the mean in which each value counts `decay` times as much as the one after it."""
    weights = [decay ** (len(values) - 1 - i) for i in range(len(values))]
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


class SlowForecast:
    """Keeps the whole history and works everything out anew."""

    def __init__(self, num_layers: int, params: ForecastParams) -> None:
        self.params = params
        self.layers = [Layer() for _ in range(num_layers)]
        self.logs: list[float] = []
        self.ways: list[tuple[float, float, float]] = []
        self.surprise = 1.0
        self.per_layer = [1.0] * num_layers
        self.is_drifting = False

    def mean(self, layer: Layer, num_experts: int) -> Array:
        if not layer.shares:
            return np.zeros(num_experts)
        recent = layer.recent()
        shrinkage = 0.0 if self.is_drifting else self._shrinkage()
        return recent + shrinkage * (layer.long_run(self.params.decay) - recent)

    def covariance(self, layer: Layer, num_experts: int) -> Array:
        if not layer.moments:
            return np.zeros((num_experts, num_experts))
        return np.asarray(weighted(layer.moments, self.params.decay))

    def scale(self, layer: Layer) -> float:
        recent = layer.tokens[-layer.num_recent :] if layer.tokens else []
        return float(np.mean([t for window in recent for t in window])) if recent else 0.0

    def observe(self, samples: npt.NDArray[Any]) -> None:
        num_experts = samples.shape[2]
        predicted = [self.mean(layer, num_experts) for layer in self.layers]
        windows = [
            [(s / s.sum(), float(s.sum())) for s in samples[:, i].astype(float) if s.sum() > 0]
            for i in range(len(self.layers))
        ]
        trust = self._judge(predicted, windows)
        self._learn_shrinkage(windows, trust)
        for layer, window, forecast in zip(self.layers, windows, predicted, strict=True):
            if not window:
                continue
            steps = [share for share, _ in window]
            if layer.shares:
                errors = [np.outer(s - forecast, s - forecast) for s in steps]
                layer.moments.append(trust * np.asarray(sum(errors)) / len(steps))
            else:
                layer.moments.append(own_moment(window, self.params.num_requests))
            layer.shares.append(steps)
            layer.tokens.append([tokens for _, tokens in window])
            layer.num_recent = 1 if self.is_drifting else layer.num_recent + 1
            layer.num_recent = min(layer.num_recent, self.params.recent_windows)

    def _shrinkage(self) -> float:
        if self.params.shrinkage is not None:
            return self.params.shrinkage
        weights = [self.params.decay ** (len(self.ways) - 1 - i) for i in range(len(self.ways))]
        along, square, count = (
            sum(w * way[i] for w, way in zip(weights, self.ways, strict=True)) for i in range(3)
        )
        if square == 0:
            return 0.0
        return min(1.0, max(0.0, along / square)) * count / (count + 5)

    def _learn_shrinkage(self, windows: list[list[tuple[Array, float]]], trust: float) -> None:
        along = square = 0.0
        for layer, window in zip(self.layers, windows, strict=True):
            if layer.shares and window:
                way = layer.long_run(self.params.decay) - layer.recent()
                mean = np.mean([share for share, _ in window], axis=0)
                along += float(way @ (mean - layer.recent()))
                square += float(way @ way)
        if any(s.shares and w for s, w in zip(self.layers, windows, strict=True)):
            self.ways.append((trust * along, trust * square, trust))

    def _judge(self, predicted: list[Array], windows: list[list[tuple[Array, float]]]) -> float:
        values = []
        self.per_layer = [1.0] * len(self.layers)
        for i, (layer, window) in enumerate(zip(self.layers, windows, strict=True)):
            if layer.shares and window:
                value = discrepancy(predicted[i], window)
                if layer.discrepancies:
                    usual = weighted(layer.discrepancies, self.params.decay)
                    self.per_layer[i] = value / usual
                layer.discrepancies.append(value)
                values.append(value)
        self.is_drifting = False
        if not values:
            self.surprise = 1.0
            return 1.0
        log = math.log(float(np.mean(values)))
        threshold = math.inf
        if self.logs:
            usual = weighted(self.logs, self.params.decay)
            self.surprise = math.exp(log - usual)
            count = sum(self.params.decay**i for i in range(len(self.logs)))
            variance = weighted([(x - usual) ** 2 for x in self.logs], self.params.decay)
            sd = math.sqrt((count * variance + 8 * 0.4**2) / (count + 8))
            if len(self.logs) >= self.params.alarm_warmup_windows:
                threshold = usual + self.params.alarm_sds * sd
        self.is_drifting = log > threshold
        self.logs.append(min(log, threshold))
        return math.exp(min(log, threshold) - log)


def discrepancy(predicted: Array, window: list[tuple[Array, float]]) -> float:
    mean = np.mean([share for share, _ in window], axis=0)
    total = sum((p - q) ** 2 / (p + q) for p, q in zip(predicted, mean, strict=True) if p + q > 0)
    return float(total + len(mean) / (2 * sum(tokens for _, tokens in window)))


def own_moment(window: list[tuple[Array, float]], num_requests: int) -> Array:
    """Return what a first window says of its own spread, filled up with the prior."""
    steps = np.stack([share for share, _ in window])
    tokens = float(np.mean([count for _, count in window]))
    num_steps, mean = len(steps), steps.mean(axis=0)
    prior = mean / tokens + 0.85**2 / num_requests * mean**2
    if num_steps == 1:
        return np.diag(prior)
    own = np.atleast_2d(np.cov(steps, rowvar=False)) * (1 + 1 / num_steps)
    part = 8 / (8 + num_steps - 1)
    filled = np.diag(prior * (np.trace(own) / prior.sum()))
    return np.asarray((1 - part) * own + part * filled)
