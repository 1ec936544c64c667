"""When a process dies or a disk fills up, the SQLite store has all of a change, or none."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from expertplane_server.core.plan import PlanState
from expertplane_server.store import SqliteStore, StoreError
from expertplane_server.store.base import KEEP_PLANS

from .. import builders
from .test_sqlite import ROOT, environment, opened


if TYPE_CHECKING:
    from pathlib import Path


NAME = builders.NAME


def test_killed_while_publishing(tmp_path: Path) -> None:
    """What was acknowledged before a kill -9 is there after it; nothing is there by half."""
    path = tmp_path / "planner.db"
    publisher = subprocess.Popen(
        [sys.executable, "-m", "tests.server.store.publisher", str(path)],
        env=environment(),
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
        found = store.recover(NAME, num_plans=10**6)
        head, committed = found.deployment.head, found.deployment.committed
        assert acknowledged >= 25
        # The commit after it may have been stored without a word, or its plan staged.
        assert acknowledged <= committed <= head <= acknowledged + 1
        states = {plan.version: plan.state for plan in found.plans}
        assert list(states) == list(range(head, max(0, head - KEEP_PLANS), -1))
        assert states.pop(committed) is PlanState.COMMITTED
        if head > committed:
            assert states.pop(head) is PlanState.STAGING
        assert set(states.values()) == {PlanState.SUPERSEDED}
        versions = list(range(1, head + 1))
        assert [each.plan_version for each in found.decisions] == versions
        requests = [store.answered(f"r{version}") for version in versions]
        assert [each.answer for each in requests if each is not None] == versions
        assert store.answered(f"r{head + 1}") is None
        assert store.epoch == 2
        assert builders.published(store, epoch=2).version == head + 1


def test_full_disk(tmp_path: Path) -> None:
    """A full disk refuses a plan whole; with room, its version and its request id are free."""
    with opened(tmp_path / "planner.db") as store:
        store.create_deployment(NAME, builders.spec(), request_id="", now_s=0.0)
        _fill_up(store)
        before = store.recover(NAME, num_plans=1000)
        published = before.deployment.head
        request = builders.request(f"r{published + 1}")

        with pytest.raises(StoreError, match="full"):
            builders.published(store, asked=request)
        after = store.recover(NAME, num_plans=1000)
        assert after.deployment == before.deployment
        assert [plan.version for plan in after.plans] == [plan.version for plan in before.plans]
        assert after.decisions == before.decisions
        assert store.answered(request.id) is None

        _limit_pages(store, 100_000)
        assert builders.published(store, asked=request).version == published + 1


def test_full_disk_during_a_roll_out(tmp_path: Path) -> None:
    """A roll-out can be given up, or not at all, on a full disk, and ends once there is room."""
    with opened(tmp_path / "planner.db") as store:
        store.create_deployment(NAME, builders.spec(), request_id="", now_s=0.0)
        version = builders.published(store, state=PlanState.STAGING).version
        why = builders.decision(2, message="x" * 100_000, plan_version=version)
        _limit_pages(store, 0)

        with pytest.raises(StoreError, match="full"):
            store.abort(NAME, version, decision=why, epoch=1, now_s=0.0)
        assert store.plan(NAME, version).state is PlanState.STAGING
        assert len(store.recover(NAME, num_plans=1).decisions) == 1

        _limit_pages(store, 100_000)
        store.abort(NAME, version, decision=why, epoch=1, now_s=0.0)
        assert store.plan(NAME, version).state is PlanState.ABORTED
        assert store.decision(NAME, 2) == why


def _fill_up(store: SqliteStore) -> None:
    """Publish on a disk that is nearly full until it is."""
    _limit_pages(store, 0)
    number = 0

    def publish_for_ever() -> None:
        nonlocal number
        while True:
            number += 1
            builders.published(store, asked=builders.request(f"r{number}"))

    with pytest.raises(StoreError, match="full"):
        publish_for_ever()


def _limit_pages(store: SqliteStore, num_pages: int) -> None:
    """Let the file grow to so many pages, and never below those that it has."""
    connection = store._database._connection
    present = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {max(num_pages, present)}")
