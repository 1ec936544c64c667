"""What every store promises about migrations and forecasts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from expertplane_server.core.plan import Necessity, Reason

from .. import builders
from .test_contract import create, delete


if TYPE_CHECKING:
    from expertplane_server.store import Store


def test_plan_with_its_migration(store: Store) -> None:
    """What a plan gains, costs and moves is stored with it, also that it moves nothing."""
    create(store)
    rich = builders.draft(
        gain_s=7.0,
        cost_s=0.5,
        parameters=(("z", "2.5"),),
        is_drifting=True,
        necessity=Necessity.LOST_EXPERTS,
        transfers=builders.transfers(),
    )
    nothing = replace(builders.transfers(), table=np.zeros((0, 6), dtype=np.int32))
    for number, draft in enumerate((rich, builders.draft(transfers=nothing)), start=1):
        builders.published(store, draft)
        solution = store.plan(builders.NAME, number).draft.solution
        wanted = draft.solution

        assert solution.transfers is not None
        assert wanted.transfers is not None
        assert solution.transfers.table.dtype == np.int32
        np.testing.assert_array_equal(solution.transfers.table, wanted.transfers.table)
        assert solution.transfers.total_bytes == wanted.transfers.total_bytes
        assert solution.transfers.estimated_s == wanted.transfers.estimated_s
        for name in (
            *("gain_s", "cost_s", "parameters", "is_drifting", "most_moved_slots", "necessity"),
        ):
            assert getattr(solution, name) == getattr(wanted, name)


def test_operators_plan(store: Store) -> None:
    """An operator's plan keeps its comment, and that it was measured on nothing."""
    create(store)
    own = replace(builders.draft(evaluation=None, policy="operator"), comment="by h\u00e4nd")
    own = replace(own, reason=Reason.PUBLISHED_BY_OPERATOR)
    builders.published(store, own)
    draft = store.plan(builders.NAME, 1).draft

    assert (draft.comment, draft.reason) == ("by h\u00e4nd", Reason.PUBLISHED_BY_OPERATOR)
    assert draft.solution.evaluation is None


def test_plans_without_transfers(store: Store) -> None:
    """A list may leave migrations out, which are most of what is stored of a plan."""
    create(store)
    builders.published(store, builders.draft(transfers=builders.transfers()))
    (whole,) = store.plans(builders.NAME, below=9, limit=9)
    (brief,) = store.plans(builders.NAME, below=9, limit=9, has_transfers=False)

    assert whole.draft.solution.transfers is not None
    assert brief.draft.solution.transfers is None
    assert (brief.version, brief.digest) == (whole.version, whole.digest)


def test_forecast(store: Store) -> None:
    """The latest checkpoint of a deployment's generation comes back; others have none."""
    create(store)
    assert store.forecast(builders.NAME, 1) is None
    for checkpoint in (b"first", b"", b"latest"):
        store.save_forecast(builders.NAME, 1, checkpoint, now_s=0.0)
        assert store.forecast(builders.NAME, 1) == checkpoint

    create(store, "other/name")
    assert store.forecast("other/name", 1) is None
    assert store.forecast(builders.NAME, 2) is None


@pytest.mark.parametrize(("name", "generation"), [("no/such", 1), (builders.NAME, 2)])
def test_forecast_of_nobody(store: Store, name: str, generation: int) -> None:
    """A checkpoint that has outlived its deployment, or its generation, is let go."""
    create(store)
    store.save_forecast(name, generation, b"late", now_s=0.0)

    assert store.forecast(name, generation) is None


def test_forecast_goes_with_its_deployment(store: Store) -> None:
    """A deployment of an earlier name knows nothing of its predecessor's load."""
    create(store)
    store.save_forecast(builders.NAME, 1, b"learned", now_s=0.0)
    delete(store)
    create(store)

    assert store.forecast(builders.NAME, 1) is None
