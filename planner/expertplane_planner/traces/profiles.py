"""How load spreads over experts: profiles of domains, and the cap that top-k routing sets.

Legend: D domains, L layers, E logical experts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    import numpy.typing as npt

    from .config import TraceConfig


def draw_profiles(config: TraceConfig, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return each domain's expected share of every expert.

    Log-normal body with left-skewed cold experts, shared by the domains; Student-t deviations of
    each domain; optionally a common factor per expert group. Mutates `rng`.

    Args:
        config: Dimensions and spreads.
        rng: Source of randomness.

    Returns:
        [num_domains, num_layers, num_logical_experts] float64, sums to 1 over the experts.
    """
    D, L, E = config.num_domains, config.num_layers, config.num_logical_experts
    base = config.base_sd * rng.standard_normal((L, E))
    base -= config.cold_shift * (rng.random((L, E)) < config.cold_fraction)

    # Unit variance, so that a domain's spread means the same at any tail weight.
    unit_t = rng.standard_t(config.tail_dof, (D, L, E)) * np.sqrt(1 - 2 / config.tail_dof)
    layer_factor = np.exp(config.layer_sd * rng.standard_normal((D, L, 1)))
    domain_sds = np.asarray(config.domain_sds).reshape(D, 1, 1)
    log_share = base + domain_sds * layer_factor * unit_t

    if config.group_sd > 0:
        num_groups = config.num_expert_groups
        half_sd = config.group_sd / np.sqrt(2)
        shared = half_sd * rng.standard_normal((1, L, num_groups))
        own = half_sd * rng.standard_normal((D, L, num_groups))
        log_share += np.repeat(shared + own, E // num_groups, axis=-1)

    share = np.exp(log_share - log_share.max(axis=-1, keepdims=True))
    return cap_shares(share, config.top_k)


def cap_shares(share: npt.NDArray[np.float64], top_k: int) -> npt.NDArray[np.float64]:
    """Scale shares to sum 1 with none above 1 / top_k, keeping the ratios of the others.

    A token picks an expert at most once, so an expert sees at most every token once and never
    more than 1 / top_k of the picks. Does not mutate the input.

    Args:
        share: [..., num_logical_experts] float64, non-negative, any scale, at least top_k of them
            positive in each row.
        top_k: Experts per token, at most num_logical_experts.

    Returns:
        [..., num_logical_experts] float64.
    """
    cap = 1.0 / top_k
    descending = -np.sort(-share, axis=-1)
    # If the j hottest stand at the cap, the others share what is left: scale[j] is their factor.
    tail = np.cumsum(descending[..., ::-1], axis=-1)[..., ::-1]
    left = np.maximum(1.0 - cap * np.arange(share.shape[-1]), 0.0)
    scale = left / np.where(tail > 0, tail, 1.0)
    # The first j whose hottest uncapped expert fits; j = top_k always does, nothing is left then.
    fits = descending * scale <= cap * (1 + 1e-12)
    num_capped = np.argmax(fits, axis=-1)[..., None]
    capped: npt.NDArray[np.float64] = np.minimum(
        share * np.take_along_axis(scale, num_capped, axis=-1), cap
    )
    return capped
