"""Backups: taken beside a planner that writes, whole or not there, and restored."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from expertplane_server.core.errors import AlreadyExistsError, InvalidArgumentError
from expertplane_server.core.plan import PlanState
from expertplane_server.store import SqliteStore, StoreError
from expertplane_server.store.backup import backup
from expertplane_server.store.base import StoreDamagedError

from .. import builders
from .test_sqlite import ROOT, environment, execute, fill, opened


if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Where the store's file is to be."""
    return tmp_path / "state" / "planner.db"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where the copy is to be, in a folder of its own."""
    (tmp_path / "backups").mkdir()
    return tmp_path / "backups" / "copy.db"


def names(target: Path) -> list[str]:
    """Return what lies in the target's folder."""
    return sorted(each.name for each in target.parent.iterdir())


def test_backup_of_a_store_in_use(source: Path, target: Path) -> None:
    """A store that is open, its log not yet in its file, is copied, and goes on."""
    with opened(source) as store:
        store.create_deployment(builders.NAME, builders.spec(), request_id="r1", now_s=0.0)
        builders.published(store, builders.draft(transfers=builders.transfers()))
        store.save_forecast(builders.NAME, 1, b"learned", now_s=0.0)
        before = store.recover(builders.NAME, num_plans=9)
        backup(source, target)
        assert builders.published(store).version == 2

    assert names(target) == ["copy.db"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with opened(target) as copy:
        after = copy.recover(builders.NAME, num_plans=9)
        assert after.deployment == before.deployment
        assert [plan.digest for plan in after.plans] == [plan.digest for plan in before.plans]
        assert after.decisions == before.decisions
        assert copy.forecast(builders.NAME, 1) == b"learned"
        assert copy.answered("r1") is not None
        assert copy.epoch == 2


def test_backup_during_a_transaction(source: Path, target: Path) -> None:
    """Half of a change is not copied, and neither side waits for the other."""
    with opened(source) as store:
        store.create_deployment(builders.NAME, builders.spec(), request_id="", now_s=0.0)
        builders.published(store)
        with store._database.transaction() as connection:
            connection.execute("UPDATE plans SET state = 'superseded'")
            backup(source, target)

    with opened(target) as copy:
        assert copy.plan(builders.NAME, 1).state is PlanState.COMMITTED


def test_backup_beside_a_publishing_process(source: Path, target: Path) -> None:
    """Copies of a store that another process keeps writing to are whole, one after the other."""
    publisher = subprocess.Popen(
        [sys.executable, "-m", "tests.server.store.publisher", str(source)],
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert publisher.stdout is not None
    heads = []
    with publisher.stdout as lines:
        for _ in range(3):
            acknowledged = int(lines.readline())
            backup(source, target, replaces=True)
            with opened(target) as copy:
                found = copy.recover(builders.NAME, num_plans=1000)
            heads.append(found.deployment.head)
            assert found.deployment.head >= acknowledged
            assert len(found.decisions) == found.deployment.head
            assert found.deployment.committed >= found.deployment.head - 1
        publisher.kill()
    publisher.wait()

    assert heads == sorted(heads)


def test_backup_of_a_store_at_rest(source: Path, target: Path) -> None:
    """A store that nobody has open is copied and left as it was."""
    fill(source, 2)
    content = source.read_bytes()
    backup(source, target)

    assert source.read_bytes() == content
    with opened(target) as copy:
        assert copy.deployments()[0].head == 2


def test_restored(source: Path, target: Path) -> None:
    """A copy in the store's place is that store, which jumps past what participants have seen."""
    fill(source, 1)
    backup(source, target)
    with opened(source) as store:
        builders.published(store)
        seen = store.epoch
    shutil.copy(target, source)

    with opened(source) as store:
        assert store.deployments()[0].head == 1
        head, epoch = store.raise_counters(builders.NAME, version=2, epoch=seen)
        assert (head, epoch) == (2, seen + 1)
        assert builders.published(store).version == 3


def test_target_that_exists(source: Path, target: Path) -> None:
    """A file that is there already is replaced only when told."""
    fill(source)
    target.write_text("precious")

    with pytest.raises(AlreadyExistsError, match="which exists"):
        backup(source, target)
    assert target.read_text() == "precious"
    backup(source, target, replaces=True)
    with opened(target) as copy:
        assert len(copy.deployments()) == 1


def test_target_that_is_the_store(source: Path) -> None:
    """A store is never replaced by its own copy, under whatever name."""
    with opened(source):
        alias = source.with_name("alias.db")
        alias.symlink_to(source)
        for path in (source, alias):
            with pytest.raises(InvalidArgumentError, match="the store itself"):
                backup(source, path, replaces=True)


def test_target_that_is_open(source: Path, target: Path) -> None:
    """A database that somebody has open, or that was left with its log, is not replaced."""
    fill(source)
    with opened(target) as other:
        other.create_deployment("b/b", builders.spec(), request_id="", now_s=0.0)
        with pytest.raises(InvalidArgumentError, match=r"copy\.db-wal"):
            backup(source, target, replaces=True)
        assert other.deployments()[0].name == "b/b"


def test_no_store(source: Path, target: Path) -> None:
    """Where there is no store there is no copy either."""
    with pytest.raises(StoreError, match="got no file"):
        backup(source, target)
    assert names(target) == []


@pytest.mark.parametrize("content", [b"", b"not a database, but long enough for a header" * 4])
def test_no_database(source: Path, target: Path, content: bytes) -> None:
    """What is no store of ours is not passed on as one, and leaves nothing behind."""
    source.parent.mkdir()
    source.write_bytes(content)

    with pytest.raises(StoreError):
        backup(source, target)
    assert names(target) == []


def test_store_of_a_later_release(source: Path, target: Path) -> None:
    """A schema that this release does not know is not passed on unseen."""
    fill(source)
    execute(source, "PRAGMA user_version = 99")

    with pytest.raises(StoreDamagedError, match="got 99"):
        backup(source, target)
    assert names(target) == []


def test_damaged_store(source: Path, target: Path) -> None:
    """A store with a page overwritten gives no copy, and the copy before stays."""
    fill(source, 40)
    backup(source, target)
    good = target.read_bytes()
    with source.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * 4096 * 4)

    with pytest.raises(StoreError):
        backup(source, target, replaces=True)
    assert target.read_bytes() == good
    assert names(target) == ["copy.db"]


def test_folder_that_is_not_there(source: Path, target: Path) -> None:
    """A copy needs a folder."""
    fill(source)

    with pytest.raises(StoreError, match="Expected to write"):
        backup(source, target.with_name("nowhere") / "copy.db")


def test_copy_is_one_file(source: Path, target: Path) -> None:
    """A copy needs no log beside it: it can be moved as it is."""
    with opened(source) as store:
        store.create_deployment(builders.NAME, builders.spec(), request_id="", now_s=0.0)
        backup(source, target)

    moved = target.with_name("moved.db")
    os.replace(target, moved)
    with closing(sqlite3.connect(f"file:{moved}?mode=ro&immutable=1", uri=True)) as connection:
        assert connection.execute("SELECT name FROM deployments").fetchall() == [(builders.NAME,)]
    with closing(SqliteStore(moved)) as copy:
        assert len(copy.deployments()) == 1
