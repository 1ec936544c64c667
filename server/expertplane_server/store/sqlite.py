"""The embedded store: one SQLite file, one owner, nothing lost on a power cut.

Write-ahead log with `synchronous=FULL`, STRICT tables, `BEGIN IMMEDIATE`, a lock file against a
second process. Not for network file systems: their locks do not hold.
"""

from __future__ import annotations

import sqlite3
import uuid
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane.wire import digest_phy2log
from expertplane_server.core.errors import InvalidArgumentError
from expertplane_server.core.plan import Plan, PlanState
from expertplane_server.core.spec import Deployment
from expertplane_server.store import codec, schema
from expertplane_server.store.base import StoreDamagedError, StoreError
from expertplane_server.store.lock import lock_file
from expertplane_server.store.refusals import (
    check_epoch,
    check_etag,
    check_repeated,
    creation_of,
    name_taken,
    no_such_deployment,
    no_such_plan,
    raised_epoch,
    removal_of,
    repeated_creation,
)


if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from expertplane_server.core.plan import PlanDraft
    from expertplane_server.core.spec import DeploymentSpec


_REQUESTS_KEPT = 10_000


class SqliteStore:
    """A store in one file; see `Store` for the contract.

    Args:
        path: the database file; its folder is made when it is missing.

    Raises:
        StoreInUseError: another process has it open.
        StoreDamagedError: it fails its integrity check, or a later release wrote it.
        StoreError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = lock_file(path)
        with ExitStack() as undo:
            undo.callback(self._lock.close)
            self._connection = self._open()
            undo.callback(self._connection.close)
            self._epoch = self._bump_epoch()
            undo.pop_all()

    @property
    def epoch(self) -> int:
        """The owner's term."""
        return self._epoch

    def deployments(self) -> list[Deployment]:
        """Returns every deployment, by name."""
        with self._transaction() as connection:
            rows = connection.execute(f"{_SELECT_DEPLOYMENT} ORDER BY name").fetchall()
        return [_deployment(row) for row in rows]

    def create_deployment(
        self, name: str, spec: DeploymentSpec, *, request_id: str, now_s: float
    ) -> tuple[Deployment, bool]:
        """Adds a deployment."""
        with self._transaction() as connection:
            present = self._find(connection, name)
            first = self._first_use(connection, request_id)
            if first is not None:
                return repeated_creation(name, present, first), False
            if present is not None:
                raise name_taken(name)
            connection.execute(
                "INSERT INTO deployments VALUES (?, ?, ?, 1, 0, ?)",
                (name, codec.spec_to_json(spec), uuid.uuid4().hex, now_s),
            )
            connection.execute("INSERT OR IGNORE INTO counters VALUES (?, 0)", (name,))
            if request_id:
                self._remember(connection, request_id, creation_of(name), now_s)
            return self._get(connection, name), True

    def delete_deployment(self, name: str, *, etag: str, request_id: str, now_s: float) -> bool:
        """Removes a deployment with its plans; its counter stays."""
        with self._transaction() as connection:
            first = self._first_use(connection, request_id)
            if first is not None:
                check_repeated(removal_of(name), first)
                return False
            check_etag(self._get(connection, name), etag)
            connection.execute("DELETE FROM deployments WHERE name = ?", (name,))
            if request_id:
                self._remember(connection, request_id, removal_of(name), now_s)
        return True

    def publish(self, draft: PlanDraft, *, epoch: int, now_s: float) -> Plan:
        """Assigns the next version to a draft and commits it."""
        solution = draft.solution
        with self._transaction() as connection:
            check_epoch(epoch, self._stored_epoch(connection))
            version = self._get(connection, draft.deployment).head + 1
            connection.execute(
                "UPDATE plans SET state = ? WHERE deployment = ? AND version = "
                "(SELECT committed FROM deployments WHERE name = deployment)",
                (PlanState.SUPERSEDED, draft.deployment),
            )
            connection.execute(
                "INSERT INTO plans VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    draft.deployment,
                    version,
                    epoch,
                    draft.generation,
                    draft.parent,
                    PlanState.COMMITTED,
                    solution.digest,
                    *solution.phy2log.shape,
                    solution.num_logical_experts,
                    np.ascontiguousarray(solution.phy2log, dtype=codec.MAP_DTYPE).tobytes(),
                    codec.provenance_to_json(draft),
                    now_s,
                    codec.transfers_to_blob(solution.transfers),
                ),
            )
            self._set_head(connection, draft.deployment, version)
            connection.execute(
                "UPDATE deployments SET committed = ? WHERE name = ?", (version, draft.deployment)
            )
        return Plan(
            draft=draft,
            version=version,
            epoch=epoch,
            state=PlanState.COMMITTED,
            created_at_s=now_s,
        )

    def mark_applied(self, deployment: str, version: int) -> None:
        """Notes that every member serves with a committed version."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE plans SET state = ? WHERE deployment = ? AND version = ? AND state = ?",
                (PlanState.APPLIED, deployment, version, PlanState.COMMITTED),
            )

    def plan(self, deployment: str, version: int) -> Plan:
        """Returns one plan."""
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT * FROM plans WHERE deployment = ? AND version = ?", (deployment, version)
            ).fetchone()
        if row is None:
            raise no_such_plan(deployment, version)
        return _plan(row)

    def plans(
        self, deployment: str, *, below: int, limit: int, has_transfers: bool = True
    ) -> list[Plan]:
        """Returns up to `limit` plans with versions under `below`, newest first."""
        with self._transaction() as connection:
            rows = connection.execute(
                f"SELECT {'*' if has_transfers else _PLAN_WITHOUT_TRANSFERS} FROM plans "
                "WHERE deployment = ? AND version < ? ORDER BY version DESC LIMIT ?",
                (deployment, below, limit),
            ).fetchall()
        return [_plan(row) for row in rows]

    def raise_counters(self, deployment: str, *, version: int, epoch: int) -> tuple[int, int]:
        """Lifts head and epoch above what a participant has seen."""
        with self._transaction() as connection:
            current = self._get(connection, deployment)
            head = max(current.head, version)
            raised = raised_epoch(self._epoch, epoch, is_behind=version > current.head)
            self._set_head(connection, deployment, head)
            connection.execute("UPDATE term SET epoch = ?", (raised,))
        self._epoch = raised
        return head, raised

    def save_forecast(
        self, deployment: str, generation: int, checkpoint: bytes, *, now_s: float
    ) -> None:
        """Keeps the forecast of a deployment, in place of an earlier one."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO forecasts SELECT name, generation, ?, ? FROM deployments "
                "WHERE name = ? AND generation = ?",
                (checkpoint, now_s, deployment, generation),
            )

    def forecast(self, deployment: str, generation: int) -> bytes | None:
        """Returns the forecast that was kept last, if there is one."""
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT checkpoint FROM forecasts WHERE deployment = ? AND generation = ?",
                (deployment, generation),
            ).fetchone()
        return bytes(row["checkpoint"]) if row is not None else None

    def close(self) -> None:
        """Closes the file and gives the lock back."""
        self._connection.close()
        self._lock.close()

    def _open(self) -> sqlite3.Connection:
        """Opens, checks and if need be creates the database."""
        try:
            # Opened in one thread, used in the service's store thread, never in two at once.
            connection = sqlite3.connect(
                self._path, isolation_level=None, check_same_thread=False, timeout=5.0
            )
        except sqlite3.Error as error:
            raise StoreError(f"Expected to open {self._path}, got: {error}.") from error
        try:
            self._prepare(connection)
        except sqlite3.Error as error:
            connection.close()
            message = f"Expected a readable SQLite file at {self._path}, got: {error}."
            raise StoreDamagedError(message) from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Sets the connection up, checks the database and if need be creates its tables.

        Raises:
            StoreDamagedError: the file fails its check, or a later release wrote it.
            StoreError: its schema could not be brought up to date.
        """
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        schema.prepare(connection, self._path)

    def _bump_epoch(self) -> int:
        """Starts a new term, durably."""
        with self._transaction() as connection:
            connection.execute("UPDATE term SET epoch = epoch + 1")
            return self._stored_epoch(connection)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Runs one transaction; SQLite's own errors come out as StoreError."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._roll_back()
                raise
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise StoreError(f"Expected to write {self._path}, got: {error}.") from error

    def _roll_back(self) -> None:
        """Undoes the open transaction, unless SQLite has done so itself (as on a full disk)."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _stored_epoch(self, connection: sqlite3.Connection) -> int:
        """Reads the term from the file."""
        return int(connection.execute("SELECT epoch FROM term").fetchone()["epoch"])

    def _find(self, connection: sqlite3.Connection, name: str) -> Deployment | None:
        """Returns a deployment, or None."""
        row = connection.execute(f"{_SELECT_DEPLOYMENT} WHERE name = ?", (name,)).fetchone()
        return _deployment(row) if row is not None else None

    def _get(self, connection: sqlite3.Connection, name: str) -> Deployment:
        """Returns a deployment that must exist."""
        deployment = self._find(connection, name)
        if deployment is None:
            raise no_such_deployment(name)
        return deployment

    def _set_head(self, connection: sqlite3.Connection, name: str, head: int) -> None:
        """Moves a deployment's version counter."""
        connection.execute("UPDATE counters SET head = ? WHERE deployment = ?", (head, name))

    def _first_use(self, connection: sqlite3.Connection, request_id: str) -> str | None:
        """Returns the call that a request id was used for, or None."""
        row = connection.execute(
            "SELECT call FROM requests WHERE request_id = ?", (request_id,)
        ).fetchone()
        return row["call"] if row is not None else None

    def _remember(
        self, connection: sqlite3.Connection, request_id: str, call: str, now_s: float
    ) -> None:
        """Remembers a request id in the transaction that it asked for, and forgets the oldest."""
        connection.execute("INSERT INTO requests VALUES (?, ?, ?)", (request_id, call, now_s))
        connection.execute(
            "DELETE FROM requests WHERE request_id NOT IN "
            "(SELECT request_id FROM requests ORDER BY rowid DESC LIMIT ?)",
            (_REQUESTS_KEPT,),
        )


_PLAN_WITHOUT_TRANSFERS = (
    "deployment, version, epoch, generation, parent, state, digest, num_layers, num_slots, "
    "num_logical_experts, phy2log, provenance, created_at_s, NULL AS transfers"
)
_SELECT_DEPLOYMENT = (
    "SELECT name, spec, etag, generation, committed, head "
    "FROM deployments JOIN counters ON counters.deployment = deployments.name"
)


def _deployment(row: sqlite3.Row) -> Deployment:
    """Builds a deployment from its row.

    Raises:
        StoreDamagedError: its spec cannot be read.
    """
    columns: dict[str, Any] = dict(row)
    with _damage_in(f"the spec of {columns['name']}"):
        return Deployment(**{**columns, "spec": codec.spec_from_json(columns["spec"])})


def _plan(row: sqlite3.Row) -> Plan:
    """Builds a plan from its row and verifies its content.

    Raises:
        StoreDamagedError: the content cannot be read, or does not match its digest.
    """
    with _damage_in(f"version {row['version']} of {row['deployment']}"):
        plan = codec.plan_from_row(dict(row))
    digest = digest_phy2log(plan.phy2log)
    if digest != plan.digest:
        raise StoreDamagedError(
            f"Expected digest {plan.digest} for version {plan.version} of "
            f"{plan.draft.deployment}, got {digest}."
        )
    return plan


@contextmanager
def _damage_in(what: str) -> Iterator[None]:
    """Turns whatever a codec stumbles over into damage.

    Raises:
        StoreDamagedError: the content is not what the codec wrote.
    """
    try:
        yield
    except (ValueError, TypeError, KeyError, InvalidArgumentError) as error:
        raise StoreDamagedError(
            f"Expected to read {what}, got {type(error).__name__}: {error}."
        ) from error
