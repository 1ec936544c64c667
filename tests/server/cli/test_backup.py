"""`expertplane backup`."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from expertplane_server.cli.backup import backup
from expertplane_server.store import SqliteStore

from .. import builders


if TYPE_CHECKING:
    from pathlib import Path


def invoke(*arguments: str, **environment: str) -> Any:
    """Run the command."""
    return CliRunner().invoke(backup, list(arguments), env=environment)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The file of a store with one deployment."""
    path = tmp_path / "planner.db"
    with closing(SqliteStore(path)) as store:
        store.create_deployment(builders.NAME, builders.spec(), request_id="", now_s=0.0)
    return path


def test_copies_the_store_that_a_planner_has_open(source: Path, tmp_path: Path) -> None:
    """The copy is written while the store is in use, and the command says where it is."""
    output = tmp_path / "copy.db"
    with closing(SqliteStore(source)):
        result = invoke(f"--store=sqlite:///{source}", str(output))

    assert result.exit_code == 0, result.output
    assert f"Copied {source} to {output}" in result.output
    with closing(SqliteStore(output)) as copy:
        assert [each.name for each in copy.deployments()] == [builders.NAME]


def test_finds_the_store_that_serve_is_told_of(source: Path, tmp_path: Path) -> None:
    """Beside a planner that gets its store from the environment, nothing need be said."""
    output = tmp_path / "copy.db"
    result = invoke(str(output), EXPERTPLANE_SERVE_STORE=f"sqlite:///{source}")

    assert result.exit_code == 0, result.output
    assert output.exists()


def test_replaces_by_force_alone(source: Path, tmp_path: Path) -> None:
    """A file that exists is kept unless --force is given."""
    output = tmp_path / "copy.db"
    output.write_text("precious")
    store = f"--store=sqlite:///{source}"

    refused = invoke(store, str(output))
    assert refused.exit_code == 1
    assert "which exists" in refused.output
    assert output.read_text() == "precious"
    assert invoke(store, "--force", str(output)).exit_code == 0
    assert output.read_text(errors="replace").startswith("SQLite format 3")


@pytest.mark.parametrize("store", ["mysql://x", "sqlite:////no/such/planner.db"])
def test_store_that_is_none(tmp_path: Path, store: str) -> None:
    """A store that cannot be read is said in one line."""
    result = invoke(f"--store={store}", str(tmp_path / "copy.db"))

    assert result.exit_code == 1
    assert result.output.startswith("Error: Expected ")
    assert len(result.output.splitlines()) == 1
