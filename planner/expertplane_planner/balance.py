"""Rank load and balancedness of a placement under a load.

A replica carries w / c: its expert's tokens over its expert's replicas. A rank's load is the sum
over its slots, so that a rank with two replicas of an expert counts both, over its capacity; a
masked rank has none. Balancedness of a layer is mean over maximum rank load; of a placement, the
sum of means over the sum of maxima.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .errors import InvalidLoadError
from .model.load import ExpertLoad
from .model.report import BalanceReport


if TYPE_CHECKING:
    from torch import Tensor

    from .model.placement import Placement


def rank_load(placement: Placement, load: Tensor) -> Tensor:
    """Return the tokens that each active rank has to process, over its capacity.

    Args:
        placement: Which slot holds which expert.
        load: [..., num_layers, num_logical_experts], tokens; leading dimensions, such as the
            samples of a window, are kept. Not mutated.

    Returns:
        [..., num_layers, num_active_ranks] float64, tokens, on the device of the placement.

    Raises:
        InvalidLoadError: Layers or experts are not those of the placement.
    """
    expected = [placement.num_layers, placement.num_logical_experts]
    if list(load.shape[-2:]) != expected:
        raise InvalidLoadError(
            "load",
            f"Expected load of shape [..., {expected[0]}, {expected[1]}], got {list(load.shape)}.",
        )
    tokens: Tensor = load.to(placement.phy2log.device, torch.float64)
    per_replica = tokens / placement.logcnt()
    experts = placement.active_phy2log().expand(*load.shape[:-1], -1)
    slot_load = per_replica.gather(-1, experts)
    topology = placement.topology
    rank_tokens = slot_load.reshape(*load.shape[:-1], topology.num_active_ranks, -1).sum(dim=-1)
    if topology.rank_capacities is None:
        return rank_tokens
    return rank_tokens / rank_tokens.new_tensor(topology.capacities)


def balancedness(rank_tokens: Tensor) -> Tensor:
    """Return the balancedness over all layers: sum of mean over sum of maximum rank load.

    Layers without load add nothing to either sum; without any load the result is 1.

    Args:
        rank_tokens: [..., num_layers, num_ranks], tokens, as from `rank_load`.

    Returns:
        [...] float64, in (0, 1].
    """
    tokens = rank_tokens.to(torch.float64)
    return _ratio(tokens.mean(dim=-1).sum(dim=-1), tokens.amax(dim=-1).sum(dim=-1))


def layer_balancedness(rank_tokens: Tensor) -> Tensor:
    """Return the balancedness of each layer, 1 for a layer without load.

    Args:
        rank_tokens: [..., num_layers, num_ranks], tokens, as from `rank_load`.

    Returns:
        [..., num_layers] float64, in (0, 1].
    """
    tokens = rank_tokens.to(torch.float64)
    return _ratio(tokens.mean(dim=-1), tokens.amax(dim=-1))


def report(placement: Placement, load: ExpertLoad | Tensor) -> BalanceReport:
    """Return how evenly a placement spreads a load.

    Args:
        placement: Which slot holds which expert.
        load: A load, of which the sum over samples is scored, or
            [num_layers, num_logical_experts], tokens. Not mutated.

    Raises:
        InvalidLoadError: Layers or experts are not those of the placement, or the tensor has
            further dimensions.
    """
    total = load.total() if isinstance(load, ExpertLoad) else load
    if total.dim() != 2:
        raise InvalidLoadError(
            "load",
            f"Expected load of shape [num_layers, num_logical_experts], got {list(total.shape)}.",
        )
    return step_report(rank_load(placement, total).unsqueeze(0))


def step_report(rank_tokens: Tensor) -> BalanceReport:
    """Return how evenly the ranks were loaded, step by step.

    A step waits for its most loaded rank, so means and maxima are taken in each sample and summed
    over samples then.

    Args:
        rank_tokens: [num_samples, num_layers, num_ranks], tokens, as from `rank_load`.
    """
    tokens = rank_tokens.to(torch.float64)
    mean, maximum = tokens.mean(dim=-1).sum(dim=0), tokens.amax(dim=-1).sum(dim=0)
    per_layer: list[float] = _ratio(mean, maximum).tolist()
    return BalanceReport(
        balancedness=float(_ratio(mean.sum(), maximum.sum())),
        per_layer=tuple(per_layer),
        mean=sum(per_layer) / len(per_layer),
        minimum=min(per_layer),
    )


def _ratio(mean: Tensor, maximum: Tensor) -> Tensor:
    # Rounding can lift a mean of equal loads above their maximum by one unit in the last place.
    ratio = (mean / maximum).clamp(max=1.0)
    return torch.where(maximum > 0, ratio, torch.ones_like(ratio))
