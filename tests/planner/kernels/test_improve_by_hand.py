"""The search from a placement in force, on layers that can be worked out by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from expertplane_planner.kernels.host_improve import improve_by_risk
from expertplane_planner.kernels.host_tables import Bounds

from ...support import reference_improve as reference
from .improve_case import Case, cases


def _layer(mean: list[float], rows: list[int], num_ranks: int, **changes: Any) -> Case:
    """Return a layer of certain tokens, every rank alike, its search free."""
    layer = reference.Layer(
        mean=mean,
        covariance=[[0.0] * len(mean) for _ in mean],
        slowness=[1.0] * num_ranks,
        node=changes.get("node", [0] * num_ranks),
        home=changes.get("home", [-1] * len(mean)),
        origin=changes.get("origin", rows),
        risk=0.0,
        is_exact=True,
    )
    bounds = reference.Bounds(
        max_moved=changes.get("max_moved", len(rows)),
        max_count=changes.get("max_count", num_ranks),
        price=changes.get("price", 0.0),
    )
    return Case(layers=[layer], rows=[rows], bounds=bounds, max_steps=changes.get("max_steps", 9))


def _steps(case: Case) -> list[tuple[list[int], list[int]]]:
    found = case.found()
    steps = range(int(found.num_steps[0]))
    return [(found.slots[0, s].tolist(), found.experts[0, s].tolist()) for s in steps]


def test_a_replica_gives_way_where_the_others_can_carry_its_tokens() -> None:
    """Ranks 12 1 | 3 1 | 3 3: a replica of 12 comes in place of a 3, the worst rank has 12 then.

    In place of the 1 on rank 1 the worst would have 9; but rank 0, with nothing taken off it,
    would have 14. That the 12 leaves half there is not looked at.
    """
    case = _layer([12.0, 2.0, 3.0, 6.0], [0, 1, 2, 1, 3, 3], 3, max_steps=1)

    assert _steps(case) == [([4, -1], [0, -1])]
    assert case.found().peak[0].tolist() == [13.0, 12.0]


def test_what_the_others_have_to_carry_counts_as_if_nothing_came_to_their_relief() -> None:
    """Ranks 6 7 | 6 3 | 3 3 | 1 1 | 1 1 | 7 3 | 7 3, and a third replica of the 12 leaves 4 7.

    In place of the 3 on rank 2 the worst has 11; but rank 1, with nothing taken off it, would
    have 12. In place of the 1 on rank 3 the worst has 11 either way: better, though looked at
    later.
    """
    mean, row = [12.0, 21.0, 6.0, 3.0, 2.0, 1.0, 1.0, 3.0, 3.0], [0, 1, 0, 2, 2, 3, 4, 5, 4, 6]
    case = _layer(mean, [*row, 1, 7, 1, 8], 7, max_moved=1, max_count=3, max_steps=1)

    assert _steps(case) == [([6, -1], [0, -1])]
    assert case.found().peak[0].tolist() == [13.0, 11.0]


def test_a_swap_costs_twice_what_a_replacement_does() -> None:
    """Ranks 8 4 | 2 2 | 4 4, swap 4 for 2: 2 for two slots; a third 8 in place of a 4 gains more.

    Under a budget of one moved slot only the replacement is left, under none nothing.
    """
    mean, row = [8.0, 4.0, 2.0, 2.0, 8.0], [0, 1, 2, 3, 4, 4]

    for max_moved, num_steps in ((0, 0), (1, 1)):
        steps = _steps(_layer(mean, row, 3, max_moved=max_moved, max_steps=1))
        assert [slots[1] for slots, _ in steps] == [-1] * num_steps


def test_the_way_back_is_free() -> None:
    """An expert that returns to where it came from adds no moved slot, and takes some off."""
    case = _layer([6.0, 5.0, 3.0, 2.0], [0, 1, 2, 3], 2, origin=[0, 3, 2, 1], max_moved=0)
    found = case.found()

    assert found.moved[0, :2].tolist() == [2, 0]
    assert _steps(case) == [([1, 3], [3, 1])]


def test_a_price_keeps_small_gains_out() -> None:
    """Ranks 6 5 | 3 2 of mean 8: swapping 5 for 3, to 9, gains 1 per slot, an eighth of the mean.

    Swapping 6 for 3 gains 1.5 less the other's rise to 8. A price above 3/16 leaves all as it is.
    """
    mean, row = [6.0, 5.0, 3.0, 2.0], [0, 1, 2, 3]

    assert _steps(_layer(mean, row, 2, price=0.18, max_steps=1)) != []
    assert _steps(_layer(mean, row, 2, price=0.19, max_steps=1)) == []


def test_the_last_replica_at_home_stays() -> None:
    """An expert with replicas on two nodes gives up the foreign one, not the one at home."""
    # Expert 0 lives on node 0 and has a foreign replica on node 1, as expert 3 has on node 0.
    free = _layer([2.0, 12.0, 2.0, 2.0], [1, 0, 2, 3, 0, 3], 2, node=[0, 1])
    tied = _layer([2.0, 12.0, 2.0, 2.0], [1, 0, 2, 3, 0, 3], 2, node=[0, 1], home=[0, 0, 0, 1])

    assert _steps(free) != []
    for slots, experts in _steps(tied):
        assert slots[1] == -1
        assert (slots[0], experts[0]) not in [(1, 3)]
        assert slots[0] != 1
        assert experts[0] != 1


def test_a_replica_at_home_gives_way_only_to_another_at_home() -> None:
    """12 2 | .2 .2 || 2 1 | 1 1: the 2 on rank 0 is the only one at home, and stays.

    Free experts would leave it to the one on rank 2, in a step of one slot.
    """
    mean, row = [4.0, 12.0, 1.0, 0.25, 0.25, 1.0, 1.0], [1, 0, 3, 4, 0, 2, 5, 6]
    node, home = [0, 0, 1, 1], [0, 0, 1, 0, 0, 1, 1]

    ((free, _),) = _steps(_layer(mean, row, 4, node=node, max_steps=1))
    ((tied, _),) = _steps(_layer(mean, row, 4, node=node, home=home, max_steps=1))
    assert free == [1, -1]
    assert tied == [0, 2]  # gains as much as the swap of slot 1, and comes first


def test_layers_are_searched_on_their_own() -> None:
    """Many layers at once give what each of them gives alone."""

    @settings(deadline=None, max_examples=40)
    @given(cases())
    def check(case: Case) -> None:
        together = case.found()
        for index, (layer, row) in enumerate(zip(case.layers, case.rows, strict=True)):
            alone = Case(
                layers=[layer],
                rows=[row],
                bounds=case.bounds,
                max_steps=case.max_steps,
                dtype=case.dtype,
            ).found()
            num_steps = alone.num_steps[0]
            assert together.num_steps[index] == num_steps
            assert (together.slots[index, :num_steps] == alone.slots[0, :num_steps]).all()
            assert (together.peak[index, : num_steps + 1] == alone.peak[0, : num_steps + 1]).all()

    check()


def test_nothing_is_written_to_what_it_was_given() -> None:
    """The map to start from stays as it was."""
    rows = torch.tensor([[0, 1, 2, 3]])
    found = improve_by_risk(
        torch.tensor([[6.0, 5.0, 3.0, 2.0]], dtype=torch.float64),
        torch.zeros(1, 4, 4),
        torch.full((1, 4), -1),
        torch.ones(2, dtype=torch.float64),
        torch.zeros(2, dtype=torch.int64),
        rows,
        rows,
        torch.tensor([0]),
        risk=0.0,
        max_steps=4,
        bounds=Bounds(np.array([4]), 2, 0.0, np.zeros(1)),
    )

    assert found.num_steps.tolist() == [1]
    assert rows.tolist() == [[0, 1, 2, 3]]


def test_each_start_has_its_layer_and_its_bounds() -> None:
    """Ranks 6 5 | 3 2 and 8 1 | 1 0: of three starts in two layers, each goes as far as it may."""
    rows = torch.tensor([[0, 1, 2, 3]] * 4)
    found = improve_by_risk(
        torch.tensor([[8.0, 1.0, 1.0, 0.0], [6.0, 5.0, 3.0, 2.0]], dtype=torch.float64),
        torch.zeros(2, 4, 4),
        torch.full((2, 4), -1),
        torch.ones(2, dtype=torch.float64),
        torch.zeros(2, dtype=torch.int64),
        rows,
        rows,
        torch.tensor([1, 0, 1, 1]),
        risk=0.0,
        max_steps=1,
        bounds=Bounds(np.array([2, 2, 1, 2]), 2, 0.0, np.array([0.0, 0.0, 0.0, 9.0])),
    )

    assert found.peak[:, 0].tolist() == [11.0, 9.0, 11.0, 11.0]
    assert found.num_steps.tolist() == [1, 1, 0, 0]
    assert found.peak[:2, 1].tolist() == [8.0, 8.0]


_WITHOUT_NUMBA = """
import json, sys
import importlib.machinery
find_spec = importlib.machinery.PathFinder.find_spec
importlib.machinery.PathFinder.find_spec = classmethod(
    lambda cls, name, *rest: None if name.split(".")[0] == "numba" else find_spec(name, *rest)
)
import numpy as np
import torch
from expertplane_planner.kernels.host_improve import improve_by_risk
from expertplane_planner.kernels.host_tables import Bounds
assert "numba" not in sys.modules
case = json.loads(sys.stdin.read())
tensors = [torch.tensor(v, dtype=getattr(torch, d)) for v, d in case["tensors"]]
bounds = Bounds(np.full(2, 9), 3, 1e-6, np.zeros(2))
found = improve_by_risk(*tensors, risk=1.5, max_steps=6, bounds=bounds)
print(json.dumps([part.tolist() for part in found]))
"""


def test_without_numba_the_search_is_the_same() -> None:
    """Where numba is not installed, the interpreter takes the same steps, step by step."""
    rng = np.random.default_rng(5)
    mean = rng.dirichlet(np.ones(8), size=2)
    factor = rng.normal(size=(2, 8, 3)) * 0.02
    rows = np.array([[*range(8), 0, 1, 2, 3], [*range(8), 4, 5, 6, 7]])
    arrays = [
        mean,
        factor @ factor.transpose(0, 2, 1),
        np.full((2, 8), -1),
        rng.uniform(0.8, 1.2, 4),
        np.zeros(4, dtype=np.int64),
        rows,
        rows,
        np.arange(2),
    ]
    tensors = [torch.from_numpy(values) for values in arrays]
    bounds = Bounds(np.full(2, 9), 3, 1e-6, np.zeros(2))
    found = improve_by_risk(*tensors, risk=1.5, max_steps=6, bounds=bounds)
    answer = subprocess.run(
        [sys.executable, "-c", _WITHOUT_NUMBA],
        input=json.dumps({"tensors": [(v.tolist(), str(v.dtype)) for v in arrays]}),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    assert answer.returncode == 0, answer.stderr
    slots, experts, peak, moved, num_steps = (np.array(p) for p in json.loads(answer.stdout))
    assert (num_steps == found.num_steps).all()
    assert num_steps.sum() > 2
    for layer, count in enumerate(num_steps.tolist()):
        assert (slots[layer, :count] == found.slots[layer, :count]).all()
        assert (experts[layer, :count] == found.experts[layer, :count]).all()
        assert (moved[layer, : count + 1] == found.moved[layer, : count + 1]).all()
        assert peak[layer, : count + 1] == pytest.approx(found.peak[layer, : count + 1], rel=1e-12)
