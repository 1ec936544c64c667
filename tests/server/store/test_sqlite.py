"""What the SQLite store promises beyond the contract: durability, one owner, no silent damage."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from expertplane_server.core.errors import ConflictError
from expertplane_server.core.plan import PlanState
from expertplane_server.store import SqliteStore, StoreError, StoreInUseError
from expertplane_server.store.base import Answered, StoreDamagedError
from expertplane_server.store.bounds import MAX_REQUESTS

from .. import builders


if TYPE_CHECKING:
    from collections.abc import Iterator


ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store's file is to be."""
    return tmp_path / "state" / "planner.db"


@contextmanager
def opened(path: Path) -> Iterator[SqliteStore]:
    """Open a store, and close it."""
    with closing(SqliteStore(path)) as store:
        yield store


def fill(path: Path, num_plans: int = 1) -> None:
    """Leave a file with one deployment behind."""
    with opened(path) as store:
        store.create_deployment(builders.NAME, builders.spec(), request_id="r1", now_s=0.0)
        for _ in range(num_plans):
            builders.published(store)


def environment() -> dict[str, str]:
    """Return an environment in which the checkout's packages are found."""
    packages = (ROOT / each for each in ("proto", "planner", "server", "client", "."))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(str(each) for each in packages)}


def execute(path: Path, statement: str) -> None:
    """Change the file behind the store's back."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


def test_reopened(path: Path) -> None:
    """Everything is still there after a restart: deployments, plans, states, request ids."""
    fill(path, 2)
    with opened(path) as store:
        before = store.deployments()
        store.mark_applied(builders.NAME, 2, epoch=store.epoch)

    with opened(path) as store:
        assert store.deployments() == before
        states = {
            plan.version: plan.state for plan in store.plans(builders.NAME, below=9, limit=9)
        }
        assert states == {2: PlanState.APPLIED, 1: PlanState.SUPERSEDED}
        repeated = store.create_deployment(
            builders.NAME, builders.spec(), request_id="r1", now_s=0.0
        )
        assert repeated == (before[0], False)
        assert builders.published(store).version == 3


def test_orders_are_durable(path: Path) -> None:
    """A pause, a new spec, a roll-out under way and what was refused outlive a restart."""
    fill(path)
    with opened(path) as store:
        (first,) = store.deployments()
        store.save_forecast(builders.NAME, 1, b"learned", now_s=0.0)
        told: dict[str, Any] = {"epoch": 2, "now_s": 0.0}
        paused = builders.request("r2", "pause prod/v3")
        store.set_paused(builders.NAME, is_paused=True, comment="why", request=paused, **told)
        store.update_deployment(
            builders.NAME,
            builders.spec(topology=builders.topology(slots_per_rank=4)),
            etag=first.etag,
            is_new_generation=True,
            request=None,
            **told,
        )
        builders.published(store, state=PlanState.STAGING)
        store.record(builders.NAME, builders.decision(9), request=None, **told)
        store.park(builders.NAME, builders.parked(), epoch=2)
        store.supersede(builders.NAME, "i1", epoch=2)
        before = store.recover(builders.NAME, num_plans=9)

    with opened(path) as store:
        after = store.recover(builders.NAME, num_plans=9)
        assert replace(after, plans=()) == replace(before, plans=())
        assert after.deployment.is_paused
        assert after.deployment.generation == 2
        assert [plan.state for plan in after.plans] == [PlanState.STAGING, PlanState.COMMITTED]
        assert [each.sequence for each in after.decisions] == [1, 2, 9]
        assert (after.parked, after.superseded) == ((builders.parked(),), ("i1",))
        assert store.forecast(builders.NAME, 2) == b"learned"
        assert store.answered("r2") == Answered("pause prod/v3", 0)
        with pytest.raises(ConflictError):
            store.commit(builders.NAME, 2, epoch=2)
        store.commit(builders.NAME, 2, epoch=3)


def test_how_the_file_is_kept(path: Path) -> None:
    """Every commit reaches the disk, by way of a write-ahead log, into strict tables."""
    with opened(path) as store:
        connection = store._database._connection
        settings = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
        tables = [tuple(row) for row in connection.execute("PRAGMA main.table_list")]

    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    ours = {name: is_strict for _, name, *_, is_strict in tables if "sqlite" not in name}
    assert len(ours) == 9
    assert set(ours.values()) == {1}


def test_every_opening_starts_a_term(path: Path) -> None:
    """The epoch rises with every start of an owner."""
    epochs = []
    for _ in range(3):
        with opened(path) as store:
            epochs.append(store.epoch)

    assert epochs == [1, 2, 3]


def test_raised_counters_are_durable(path: Path) -> None:
    """A raised epoch is the floor of the next term, a raised head of the next version."""
    fill(path, 0)
    with opened(path) as store:
        store.raise_counters(builders.NAME, version=40, epoch=70)

    with opened(path) as store:
        assert store.epoch == 72
        assert builders.published(store, epoch=72).version == 41


def test_counter_of_a_deleted_deployment_is_durable(path: Path) -> None:
    """A deployment that is deleted, and created after a restart, reuses no version."""
    fill(path, 2)
    with opened(path) as store:
        store.delete_deployment(builders.NAME, etag="", request_id="", now_s=0.0)

    with opened(path) as store:
        store.create_deployment(builders.NAME, builders.spec(), request_id="", now_s=0.0)
        assert builders.published(store).version == 3


def test_term_of_an_earlier_owner_is_fenced(path: Path) -> None:
    """What an owner of an earlier term writes is refused, whoever holds the file."""
    fill(path)
    with opened(path) as store:
        execute(path, "UPDATE term SET epoch = 9")

        with pytest.raises(ConflictError):
            builders.published(store)


def test_second_owner(path: Path) -> None:
    """A file has one owner; the second is told so and leaves the first alone."""
    with opened(path) as store:
        with pytest.raises(StoreInUseError) as refusal:
            SqliteStore(path)

        assert refusal.value.reason == "STORE_IN_USE"
        assert store.deployments() == []


def test_second_process(path: Path) -> None:
    """A second process is refused as well, and the term does not change."""
    opener = (
        "import sys; from pathlib import Path; from expertplane_server.store import SqliteStore; "
        "SqliteStore(Path(sys.argv[1]))"
    )
    with opened(path) as store:
        second = subprocess.run(
            [sys.executable, "-c", opener, str(path)],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        epoch = store.epoch

    assert "StoreInUseError" in second.stderr
    assert epoch == 1


def test_given_back(path: Path) -> None:
    """A closed store can be opened again."""
    with opened(path):
        pass

    with opened(path) as store:
        assert store.deployments() == []


def test_not_a_database(path: Path) -> None:
    """A file of another kind is refused, left as it is, and not held on to."""
    path.parent.mkdir()
    path.write_bytes(b"not a database, but long enough to be read as the header of one" * 4)
    content = path.read_bytes()

    for _ in range(2):
        with pytest.raises(StoreDamagedError):
            SqliteStore(path)
    assert path.read_bytes() == content


def test_damaged_page(path: Path) -> None:
    """A file with a page overwritten fails its check when it is opened."""
    fill(path, 40)
    with path.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * 4096 * 4)

    with pytest.raises(StoreDamagedError):
        SqliteStore(path)


def test_cut_off(path: Path) -> None:
    """A file that has lost its end fails its check when it is opened."""
    fill(path, 40)
    os.truncate(path, 4096 * 3)

    with pytest.raises(StoreDamagedError):
        SqliteStore(path)


@pytest.mark.parametrize("version", [4, -1])
def test_schema_of_another_release(path: Path, version: int) -> None:
    """A file that another release wrote is refused and not touched."""
    fill(path)
    execute(path, f"PRAGMA user_version = {version}")

    with pytest.raises(StoreDamagedError, match=f"schema version 3 or .*, got {version}"):
        SqliteStore(path)
    execute(path, "PRAGMA user_version = 3")
    with opened(path) as store:
        assert store.epoch == 2


def test_forecast_is_durable(path: Path) -> None:
    """A checkpoint of many megabytes is there after a restart."""
    checkpoint = os.urandom(3_000_000)
    fill(path)
    with opened(path) as store:
        store.save_forecast(builders.NAME, 1, checkpoint, now_s=0.0)

    with opened(path) as store:
        assert store.forecast(builders.NAME, 1) == checkpoint


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A path below a file is no place for a store."""
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match="Expected a writable folder"):
        SqliteStore(tmp_path / "file" / "planner.db")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE plans SET phy2log = x'0000000000000000'",
        "UPDATE plans SET phy2log = x'00'",
        "UPDATE plans SET digest = 'abc'",
        "UPDATE plans SET num_slots = 5",
        "UPDATE plans SET provenance = '{'",
        "UPDATE plans SET provenance = '{}'",
        "UPDATE plans SET provenance = '7'",
        "UPDATE plans SET state = 'lost'",
        "UPDATE plans SET transfers = x'00'",
    ],
)
def test_damaged_plan(path: Path, statement: str) -> None:
    """A plan that does not match its digest, or cannot be read at all, is never handed out."""
    with opened(path) as store:
        store.create_deployment(builders.NAME, builders.spec(), request_id="", now_s=0.0)
        draft = builders.draft(transfers=builders.transfers())
        builders.published(store, draft)
    execute(path, statement)

    with opened(path) as store:
        with pytest.raises(StoreDamagedError):
            store.plan(builders.NAME, 1)
        with pytest.raises(StoreDamagedError):
            store.plans(builders.NAME, below=9, limit=9)


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"reason": "NONE"}'])
def test_damaged_decision(path: Path, text: str) -> None:
    """A decision that cannot be read is damage, and named."""
    fill(path)
    execute(path, f"UPDATE decisions SET content = '{text}'")

    with opened(path) as store, pytest.raises(StoreDamagedError, match="decision 1 of prod/v3"):
        store.decision(builders.NAME, 1)


def test_committed_plan_that_is_lost(path: Path) -> None:
    """A deployment whose committed plan is not there is not taken for a new one."""
    fill(path, 2)
    execute(path, "DELETE FROM plans WHERE version = 2")

    with opened(path) as store, pytest.raises(StoreDamagedError, match="version 2 of prod/v3"):
        store.recover(builders.NAME, num_plans=9)


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"policy": 3}'])
def test_damaged_spec(path: Path, text: str) -> None:
    """A spec that cannot be read is damage, and named."""
    fill(path)
    execute(path, f"UPDATE deployments SET spec = '{text}'")

    with opened(path) as store, pytest.raises(StoreDamagedError, match=builders.NAME):
        store.deployments()


def test_spec_of_an_earlier_release(path: Path) -> None:
    """A spec from before a field existed has the field's default."""
    fill(path)
    execute(path, "UPDATE deployments SET spec = json_remove(spec, '$.policy.spill')")
    for name in ("masked_ranks", "rank_capacities"):
        execute(path, f"UPDATE deployments SET spec = json_remove(spec, '$.topology.{name}')")

    with opened(path) as store:
        (deployment,) = store.deployments()
        assert deployment.spec == builders.spec()


def test_spec_that_breaks_a_rule(path: Path) -> None:
    """A stored spec is checked like any other."""
    fill(path)
    execute(path, "UPDATE deployments SET spec = json_set(spec, '$.num_logical_experts', 0)")

    with opened(path) as store, pytest.raises(StoreDamagedError, match=builders.NAME):
        store.deployments()


def test_request_ids_are_bounded(path: Path) -> None:
    """The newest request ids are kept, whatever the wall clock says."""
    with opened(path) as store:
        with store._database.transaction() as connection:
            connection.executemany(
                "INSERT INTO requests VALUES (?, 'create a/a', ?, 0)",
                [(f"r{number}", 1e9) for number in range(MAX_REQUESTS)],
            )
        # The clock has been set back by then.
        store.create_deployment(builders.NAME, builders.spec(), request_id="new", now_s=5.0)
        store.create_deployment(builders.NAME, builders.spec(), request_id="new", now_s=6.0)
        with store._database.transaction() as connection:
            kept = [row[0] for row in connection.execute("SELECT request_id FROM requests")]

    assert len(kept) == MAX_REQUESTS
    assert "new" in kept
    assert "r0" not in kept
