"""Files of earlier releases: what they hold is still there, and there is room for the new."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from expertplane.wire import digest_phy2log
from expertplane_server.core.parameters import MigrationParameters, RolloutParameters
from expertplane_server.core.plan import PlanState
from expertplane_server.core.spec import Mode, PolicyChoice
from expertplane_server.store import SqliteStore, StoreError, schema
from expertplane_server.store.base import Answered, StoreDamagedError

from .. import builders


# A dump of a file; see its first line.
_PINNED = Path(__file__).with_name("schema_2.sql")

# As the release before wrote `builders.spec()`.
_SPEC_OF_VERSION_1 = """{
    "engine": "", "layer_ids": [3], "model_name": "", "num_expert_groups": 1,
    "num_logical_experts": 4,
    "policy": {"mode": "auto", "name": "deepseek", "seed": 0, "spill": 0},
    "rollout_mode": "advisory", "samples": {"deadline_s": 10.0, "min_coverage": 0.75},
    "topology": {"num_nodes": 1, "ranks_per_node": 2, "slots_per_rank": 2},
    "trigger": {
        "cooldown_s": 0.0, "max_window_s": 600.0, "min_gain": 0.01, "min_samples": 1,
        "window_samples": 1
    }
}"""


def test_schema_of_the_release_before(tmp_path: Path) -> None:
    """A file of schema version 1 keeps all that it holds, and holds what version 2 adds."""
    path = tmp_path / "planner.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"{schema._VERSIONS[0]} PRAGMA user_version = 1;")
        phy2log = np.array([[0, 2, 1, 3]], dtype="<i2")
        told = {
            **{"reason": "PUBLISHED", "policy": "deepseek", "mode": "global", "seed": 7},
            **{"balance": asdict(builders.balance()), "balance_before": None, "gain": 0.5},
            **{"moved_slots": 2, "evaluation": "in_sample", "solve_s": 0.25},
        }
        digest = digest_phy2log(phy2log)
        with connection:
            connection.execute(
                "INSERT INTO deployments VALUES (?, ?, 'e', 1, 1, 0.0)",
                (builders.NAME, _SPEC_OF_VERSION_1),
            )
            connection.execute("INSERT INTO counters VALUES (?, 1)", (builders.NAME,))
            connection.execute(
                "INSERT INTO plans VALUES (?, 1, 1, 1, 0, 'committed', ?, 1, 4, 4, ?, ?, 5.0)",
                (builders.NAME, digest, phy2log.tobytes(), json.dumps(told)),
            )

    for _ in range(2):
        with closing(SqliteStore(path)) as store:
            (deployment,) = store.deployments()
            assert deployment.spec == builders.spec(policy=PolicyChoice(name="deepseek"))
            solution = store.plan(builders.NAME, 1).draft.solution
            assert (solution.digest, solution.seed, solution.gain) == (digest, 7, 0.5)
            assert (solution.gain_s, solution.parameters, solution.transfers) == (0.0, (), None)
            store.save_forecast(builders.NAME, 1, b"learned", now_s=0.0)
            assert store.forecast(builders.NAME, 1) == b"learned"
    with closing(SqliteStore(path)) as store:
        assert builders.published(store).version == 2


def test_pinned_file_of_schema_2(tmp_path: Path) -> None:
    """A file that the release with schema 2 wrote opens, migrates once, and loses nothing."""
    path = tmp_path / "planner.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(_PINNED.read_text())

    for epoch in (2, 3):
        with closing(SqliteStore(path)) as store:
            assert store.epoch == epoch
            _check_pinned(store)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)
    with closing(SqliteStore(path)) as store:
        _check_new_in_schema_3(store)


def _check_pinned(store: SqliteStore) -> None:
    """Check what the pinned file holds."""
    recovered = store.recover(builders.NAME, num_plans=9)
    (deployment,) = store.deployments()
    assert recovered.deployment == deployment
    assert (deployment.name, deployment.etag) == (
        "prod/v3",
        "ac8a979cc7fe4bff830f6c1db1842820",
    )
    assert (deployment.generation, deployment.head, deployment.committed) == (1, 2, 2)
    assert (deployment.is_paused, deployment.pause_comment) == (False, "")
    assert (recovered.decisions, recovered.parked, recovered.superseded) == ((), (), ())
    assert deployment.spec == builders.spec(
        layer_ids=(3, 7),
        window_samples=4,
        policy=PolicyChoice(name="robust", mode=Mode.GLOBAL, max_moved_slots=2),
        topology=builders.topology(slots_per_rank=3, rank_capacities=(1.0, 0.5)),
        migration=MigrationParameters(bytes_per_expert=44_000_000),
        rollout=RolloutParameters(),
    )
    assert [(plan.version, plan.state, plan.digest) for plan in recovered.plans] == [
        (2, PlanState.APPLIED, "e0b94c6761a3f64168f8130c5e2adb5384b3d3959907fc1d358f194e2ab35794"),
        (
            *(1, PlanState.SUPERSEDED),
            "11d83d7604921c0e447daeeaa447b2b95dbba65e55cae97aa7bd27c107322be5",
        ),
    ]
    latest = recovered.plans[0].draft
    assert latest.solution.phy2log.tolist() == [[0, 2, 1, 3, 0, 1], [3, 1, 2, 0, 3, 2]]
    assert (latest.parent, latest.comment) == (1, "")
    transfers = latest.solution.transfers
    assert transfers is not None
    np.testing.assert_array_equal(transfers.table, builders.transfers().table)
    assert store.forecast(builders.NAME, 1) == b"learned"
    assert store.answered("r1") == Answered("create prod/v3", 0)
    assert store.answered("r2") == Answered("delete prod/gone", 0)


def _check_new_in_schema_3(store: SqliteStore) -> None:
    """Check that a migrated file holds what schema 3 adds, and goes on where it was."""
    plan = builders.published(store, asked=builders.request("r3"))
    assert plan.version == 3
    assert store.decision(builders.NAME, 3).plan_version == 3
    assert store.answered("r3") == Answered("publish prod/v3", 3)
    assert store.plan(builders.NAME, 2).state is PlanState.SUPERSEDED
    store.park(builders.NAME, builders.parked(), epoch=store.epoch)
    store.supersede(builders.NAME, "i1", epoch=store.epoch)
    recovered = store.recover(builders.NAME, num_plans=9)
    assert (recovered.parked, recovered.superseded) == ((builders.parked(),), ("i1",))
    gone, _ = store.create_deployment("prod/gone", builders.spec(), request_id="", now_s=0.0)
    assert gone.head == 1


def test_broken_off_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be brought up to date stays as it was, and is not called damaged."""
    path = tmp_path / "planner.db"
    *before, last = schema._VERSIONS
    with monkeypatch.context() as patch:
        patch.setattr(schema, "_VERSIONS", tuple(before))
        SqliteStore(path).close()
    with monkeypatch.context() as patch:
        broken = f"{last} INSERT INTO nowhere VALUES (1);"
        patch.setattr(schema, "_VERSIONS", (*before, broken))
        with pytest.raises(StoreError, match="to schema version 3, got: no such table") as refusal:
            SqliteStore(path)
    assert not isinstance(refusal.value, StoreDamagedError)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    assert "decisions" not in names

    with closing(SqliteStore(path)) as store:
        assert store.epoch == 2
