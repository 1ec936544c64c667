"""What is believed about a step before any forecast has been wrong.

The spread between requests follows one law in every recording: an expert's share differs between
requests by a relative standard deviation of .5 to 1 (.85 here, as the synthetic traces have it),
so a step of n independent requests by .85 / sqrt(n), plus what counting tokens adds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch


if TYPE_CHECKING:
    from torch import Tensor

    from .shares import WindowShares


REQUEST_CV = 0.85

PRIOR_SAMPLES = 8
"""Samples that the prior's diagonal counts for beside a window's own covariance: with 16 samples
it makes a third. On its own such a covariance has rank 15 and promises 0 nearly everywhere."""


def step_variance(share: Tensor, tokens: Tensor, num_requests: int) -> Tensor:
    """Return the variance of an expert's share of one step around its expectation.

    Args:
        share: [num_layers, num_logical_experts] float64.
        tokens: [num_layers] float64, tokens of a step; less than one count as one.
        num_requests: Independent requests behind a step.

    Returns:
        [num_layers, num_logical_experts] float64: share / tokens, which is Poisson, plus
        (0.85 share)^2 / num_requests.
    """
    poisson = share / tokens.clamp_min(1.0).unsqueeze(-1)
    return poisson + (REQUEST_CV**2 / num_requests) * share.square()


def cold_start(window: WindowShares, num_requests: int) -> tuple[Tensor, Tensor]:
    """Return what the first window says about how far steps stray from its mean.

    With n loaded samples in a layer, of covariance S (divided by n - 1), a step of the next window
    strays by (1 + 1/n) S, its own noise and that of the mean. Of that 8 / (7 + n) are replaced by
    a diagonal of the same trace and the prior's shape. A single sample gives the prior.

    Args:
        window: The samples.
        num_requests: Independent requests behind a sample, for a single sample.

    Returns:
        Deviations [num_layers, num_samples, num_logical_experts] and a diagonal
        [num_layers, num_logical_experts], float64. The second moment is the sum of the deviations'
        outer products, plus the diagonal.
    """
    num_loaded = window.num_loaded
    degrees = (num_loaded - 1.0).clamp_min(0.0)
    prior_part = PRIOR_SAMPLES / (PRIOR_SAMPLES + degrees)
    own_scale = (1.0 + 1.0 / num_loaded.clamp_min(1.0)) / degrees.clamp_min(1.0)

    centred = window.share - window.mean.unsqueeze(1)
    centred = torch.where(window.is_loaded.unsqueeze(-1), centred, 0.0)
    deviations = centred * ((1.0 - prior_part) * own_scale).sqrt().view(-1, 1, 1)

    prior = step_variance(window.mean, window.tokens, num_requests)
    own_trace = centred.square().sum(dim=(1, 2)) * own_scale
    prior_trace = prior.sum(dim=-1)
    to_own_trace = own_trace / torch.where(prior_trace > 0, prior_trace, 1.0)
    factor = torch.where(degrees > 0, to_own_trace, 1.0) * prior_part
    return deviations, prior * factor.unsqueeze(-1)
