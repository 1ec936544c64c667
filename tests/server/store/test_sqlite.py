"""What the SQLite store promises beyond the contract: durability, one owner, no silent damage."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from expertplane_server.core.errors import ConflictError
from expertplane_server.core.plan import PlanState
from expertplane_server.store import SqliteStore, StoreError, StoreInUseError
from expertplane_server.store.base import StoreDamagedError
from expertplane_server.store.sqlite import _REQUESTS_KEPT

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
            store.publish(builders.draft(), epoch=store.epoch, now_s=0.0)


def execute(path: Path, statement: str) -> None:
    """Change the file behind the store's back."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


def test_reopened(path: Path) -> None:
    """Everything is still there after a restart: deployments, plans, states, request ids."""
    fill(path, 2)
    with opened(path) as store:
        before = store.deployments()
        store.mark_applied(builders.NAME, 2)

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
        assert store.publish(builders.draft(), epoch=store.epoch, now_s=0.0).version == 3


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
        assert store.publish(builders.draft(), epoch=72, now_s=0.0).version == 41


def test_counter_of_a_deleted_deployment_is_durable(path: Path) -> None:
    """A deployment that is deleted, and created after a restart, reuses no version."""
    fill(path, 2)
    with opened(path) as store:
        store.delete_deployment(builders.NAME, etag="", request_id="", now_s=0.0)

    with opened(path) as store:
        store.create_deployment(builders.NAME, builders.spec(), request_id="", now_s=0.0)
        assert store.publish(builders.draft(), epoch=store.epoch, now_s=0.0).version == 3


def test_term_of_an_earlier_owner_is_fenced(path: Path) -> None:
    """What an owner of an earlier term writes is refused, whoever holds the file."""
    fill(path)
    with opened(path) as store:
        execute(path, "UPDATE term SET epoch = 9")

        with pytest.raises(ConflictError):
            store.publish(builders.draft(), epoch=store.epoch, now_s=0.0)


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
            env=_environment(),
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


@pytest.mark.parametrize("version", [3, -1])
def test_schema_of_another_release(path: Path, version: int) -> None:
    """A file that another release wrote is refused and not touched."""
    fill(path)
    execute(path, f"PRAGMA user_version = {version}")

    with pytest.raises(StoreDamagedError, match=f"schema version 2 or .*, got {version}"):
        SqliteStore(path)
    execute(path, "PRAGMA user_version = 2")
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
        store.publish(draft, epoch=store.epoch, now_s=0.0)
    execute(path, statement)

    with opened(path) as store:
        with pytest.raises(StoreDamagedError):
            store.plan(builders.NAME, 1)
        with pytest.raises(StoreDamagedError):
            store.plans(builders.NAME, below=9, limit=9)


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


def test_full_disk(path: Path) -> None:
    """A full disk refuses a plan whole; with room, its version is still free."""
    fill(path)
    with opened(path) as store:
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count = {pages}")
        published = 1

        def publish_for_ever() -> None:
            nonlocal published
            while True:
                store.publish(builders.draft(), epoch=store.epoch, now_s=0.0)
                published += 1

        with pytest.raises(StoreError) as refusal:
            publish_for_ever()

        assert "full" in refusal.value.message
        assert store.deployments()[0].head == published
        store._connection.execute("PRAGMA max_page_count = 100000")
        plan = store.publish(builders.draft(), epoch=store.epoch, now_s=0.0)
        assert plan.version == published + 1


def test_request_ids_are_bounded(path: Path) -> None:
    """The newest request ids are kept, whatever the wall clock says."""
    with opened(path) as store:
        with store._transaction() as connection:
            connection.executemany(
                "INSERT INTO requests VALUES (?, 'create a/a', ?)",
                [(f"r{number}", 1e9) for number in range(_REQUESTS_KEPT)],
            )
        # The clock has been set back by then.
        store.create_deployment(builders.NAME, builders.spec(), request_id="new", now_s=5.0)
        store.create_deployment(builders.NAME, builders.spec(), request_id="new", now_s=6.0)
        with store._transaction() as connection:
            kept = [row[0] for row in connection.execute("SELECT request_id FROM requests")]

    assert len(kept) == _REQUESTS_KEPT
    assert "new" in kept
    assert "r0" not in kept


def test_killed_while_publishing(path: Path) -> None:
    """Every version that was acknowledged before a kill -9 is there after it."""
    publisher = subprocess.Popen(
        [sys.executable, "-m", "tests.server.store.publisher", str(path)],
        env=_environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert publisher.stdout is not None
    acknowledged = 0
    with publisher.stdout as lines:
        for line in lines:
            acknowledged = int(line)
            if acknowledged == 25:
                publisher.send_signal(signal.SIGKILL)
    publisher.wait()

    with opened(path) as store:
        kept = [plan.version for plan in store.plans(builders.NAME, below=2**63 - 1, limit=10**6)]
        assert acknowledged >= 25
        # The last one may have been stored without a word.
        assert len(kept) in (acknowledged, acknowledged + 1)
        assert kept == list(range(len(kept), 0, -1))
        assert store.epoch == 2
        assert store.publish(builders.draft(), epoch=2, now_s=0.0).version == len(kept) + 1


def _environment() -> dict[str, str]:
    """Return an environment in which the checkout's packages are found."""
    packages = (ROOT / each for each in ("proto", "planner", "server", "client", "."))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(str(each) for each in packages)}
