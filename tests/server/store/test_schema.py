"""Files of earlier releases: what they hold is still there, and there is room for the new."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import pytest

from expertplane.wire import digest_phy2log
from expertplane_server.core.spec import PolicyChoice
from expertplane_server.store import SqliteStore, StoreError, schema
from expertplane_server.store.base import StoreDamagedError

from .. import builders


if TYPE_CHECKING:
    from pathlib import Path


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
        assert store.publish(builders.draft(), epoch=store.epoch, now_s=0.0).version == 2


def test_broken_off_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be brought up to date stays as it was, and is not called damaged."""
    path = tmp_path / "planner.db"
    first, second = schema._VERSIONS
    with monkeypatch.context() as patch:
        patch.setattr(schema, "_VERSIONS", (first,))
        SqliteStore(path).close()
    with monkeypatch.context() as patch:
        patch.setattr(schema, "_VERSIONS", (first, f"{second} INSERT INTO nowhere VALUES (1);"))
        with pytest.raises(StoreError, match="to schema version 2, got: no such table") as refusal:
            SqliteStore(path)
    assert not isinstance(refusal.value, StoreDamagedError)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    assert "forecasts" not in names

    with closing(SqliteStore(path)) as store:
        assert store.epoch == 2
