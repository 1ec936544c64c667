"""Plans, their migrations included."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertplane.wire import digest_phy2log
from expertplane_server.core import limits
from expertplane_server.core.plan import Plan, PlanState
from expertplane_server.store import codec
from expertplane_server.store.base import StoreDamagedError
from expertplane_server.store.damage import damage_in
from expertplane_server.store.refusals import no_such_plan


if TYPE_CHECKING:
    import sqlite3

    from expertplane_server.core.spec import Deployment


_WITHOUT_TRANSFERS = (
    "deployment, version, epoch, generation, parent, state, digest, num_layers, num_slots, "
    "num_logical_experts, phy2log, provenance, created_at_s, NULL AS transfers"
)


def insert(connection: sqlite3.Connection, plan: Plan) -> None:
    """Adds a plan."""
    row = codec.plan_to_row(plan)
    places = ", ".join(f":{name}" for name in row)
    connection.execute(f"INSERT INTO plans ({', '.join(row)}) VALUES ({places})", row)


def find(connection: sqlite3.Connection, deployment: str, version: int) -> Plan | None:
    """Returns a plan, or None."""
    row = connection.execute(
        "SELECT * FROM plans WHERE deployment = ? AND version = ?", (deployment, version)
    ).fetchone()
    return _plan(row) if row is not None else None


def find_below(
    connection: sqlite3.Connection,
    deployment: str,
    *,
    below: int,
    limit: int,
    has_transfers: bool = True,
) -> list[Plan]:
    """Returns up to `limit` plans with versions under `below`, newest first."""
    rows = connection.execute(
        f"SELECT {'*' if has_transfers else _WITHOUT_TRANSFERS} FROM plans "
        "WHERE deployment = ? AND version < ? ORDER BY version DESC LIMIT ?",
        (deployment, below, limit),
    )
    return [_plan(row) for row in rows]


def find_latest(
    connection: sqlite3.Connection, deployment: Deployment, *, limit: int
) -> list[Plan]:
    """Returns the latest plans, newest first, and the committed one however old it is.

    Raises:
        StoreDamagedError: the committed plan is not there.
    """
    latest = find_below(connection, deployment.name, below=limits.MAX_COUNTER, limit=limit)
    committed = deployment.committed
    if not committed or any(plan.version == committed for plan in latest):
        return latest
    plan = find(connection, deployment.name, committed)
    if plan is None:
        raise StoreDamagedError(
            f"Expected version {committed} of {deployment.name}, which is committed, got nothing."
        )
    return [*latest, plan]


def state_of(connection: sqlite3.Connection, deployment: str, version: int) -> PlanState:
    """Returns the state of a plan.

    Raises:
        NotFoundError: there is no such version.
        StoreDamagedError: the state is none.
    """
    row = connection.execute(
        "SELECT state FROM plans WHERE deployment = ? AND version = ?", (deployment, version)
    ).fetchone()
    if row is None:
        raise no_such_plan(deployment, version)
    with damage_in(f"the state of version {version} of {deployment}"):
        return PlanState(row["state"])


def set_state(
    connection: sqlite3.Connection, deployment: str, version: int, state: PlanState
) -> None:
    """Moves a plan into another state."""
    connection.execute(
        "UPDATE plans SET state = ? WHERE deployment = ? AND version = ?",
        (state, deployment, version),
    )


def mark_applied(connection: sqlite3.Connection, deployment: str, version: int) -> None:
    """Moves a committed plan on, and no other."""
    connection.execute(
        "UPDATE plans SET state = ? WHERE deployment = ? AND version = ? AND state = ?",
        (PlanState.APPLIED, deployment, version, PlanState.COMMITTED),
    )


def supersede(connection: sqlite3.Connection, deployment: str) -> None:
    """Ends the time of the plan in force."""
    connection.execute(
        "UPDATE plans SET state = ? WHERE deployment = ? AND state IN (?, ?)",
        (PlanState.SUPERSEDED, deployment, PlanState.COMMITTED, PlanState.APPLIED),
    )


def prune(connection: sqlite3.Connection, deployment: str, *, keep: int) -> None:
    """Forgets all but the latest `keep` plans, and those that are in force or on their way."""
    connection.execute(
        "DELETE FROM plans WHERE deployment = ? AND state IN (?, ?) AND version <= "
        "(SELECT version FROM plans WHERE deployment = ? ORDER BY version DESC LIMIT 1 OFFSET ?)",
        (deployment, PlanState.SUPERSEDED, PlanState.ABORTED, deployment, keep),
    )


def _plan(row: sqlite3.Row) -> Plan:
    """Builds a plan from its row and verifies its content.

    Raises:
        StoreDamagedError: the content cannot be read, or does not match its digest.
    """
    with damage_in(f"version {row['version']} of {row['deployment']}"):
        plan = codec.plan_from_row(dict(row))
    digest = digest_phy2log(plan.phy2log)
    if digest != plan.digest:
        raise StoreDamagedError(
            f"Expected digest {plan.digest} for version {plan.version} of "
            f"{plan.draft.deployment}, got {digest}."
        )
    return plan
