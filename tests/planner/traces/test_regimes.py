"""Traffic that switches."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from expertplane_planner import InvalidInputError
from expertplane_planner.traces import SyntheticTrace, TraceConfig
from expertplane_planner.traces.regimes import SwitchingTrace


CONFIG = TraceConfig(num_layers=2, num_logical_experts=64, top_k=4)


def test_up_to_the_switch_nothing_differs() -> None:
    """The samples before are those of the trace without a switch, the first after is another."""
    usual, switching = SyntheticTrace(CONFIG, 0), SwitchingTrace(CONFIG, 0, switch_at_sample=3)
    pairs = [(usual.next_sample(), switching.next_sample()) for _ in range(5)]

    assert [np.array_equal(*pair) for pair in pairs] == [True] * 3 + [False] * 2
    assert {int(total) for total in pairs[4][1].sum(axis=1)} == {8192 * 4}


def test_the_switch_is_abrupt() -> None:
    """Windows differ far more across the switch than on either side of it, over ten seeds."""
    across, within = [], []
    for seed in range(10):
        trace = SwitchingTrace(CONFIG, seed, switch_at_sample=16)
        shares = [window.mean(axis=0) for window in islice(trace.windows(8), 4)]
        steps = [float(np.abs(a - b).sum()) for a, b in zip(shares, shares[1:], strict=False)]
        across.append(steps[1])
        within.append(max(steps[0], steps[2]))

    assert np.mean(across) > 3 * np.mean(within)


def test_a_switch_before_the_first_sample_is_refused() -> None:
    """The field says so."""
    with pytest.raises(InvalidInputError, match="non-negative") as caught:
        SwitchingTrace(CONFIG, 0, switch_at_sample=-1)

    assert caught.value.field == "switch_at_sample"
