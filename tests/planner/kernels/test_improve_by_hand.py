"""The search from a placement in force, on layers that can be worked out by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
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
    rows = np.array([[0, 1, 2, 3]])
    improve_by_risk(
        np.array([[6.0, 5.0, 3.0, 2.0]]),
        np.zeros((1, 4, 4)),
        rows,
        rows,
        np.ones(2),
        np.zeros(2, dtype=np.int64),
        np.full((1, 4), -1),
        risk=0.0,
        max_steps=4,
        bounds=Bounds(4, 2, 0.0, 0.0),
    )

    assert rows.tolist() == [[0, 1, 2, 3]]


_WITHOUT_NUMBA = """
import json, sys
import importlib.machinery
find_spec = importlib.machinery.PathFinder.find_spec
importlib.machinery.PathFinder.find_spec = classmethod(
    lambda cls, name, *rest: None if name.split(".")[0] == "numba" else find_spec(name, *rest)
)
import numpy as np
from expertplane_planner.kernels.host_improve import improve_by_risk
from expertplane_planner.kernels.host_tables import Bounds
assert "numba" not in sys.modules
case = json.loads(sys.stdin.read())
arrays = [np.array(values) for values in case["arrays"]]
found = improve_by_risk(*arrays, risk=1.5, max_steps=6, bounds=Bounds(9, 3, 1e-6, 0.0))
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
        rows,
        rows,
        rng.uniform(0.8, 1.2, 4),
        np.zeros(4, dtype=np.int64),
        np.full((2, 8), -1),
    ]
    found = improve_by_risk(*arrays, risk=1.5, max_steps=6, bounds=Bounds(9, 3, 1e-6, 0.0))
    answer = subprocess.run(
        [sys.executable, "-c", _WITHOUT_NUMBA],
        input=json.dumps({"arrays": [values.tolist() for values in arrays]}),
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
