"""`expertplane backup`: a copy of the planner's store, while it runs."""

from __future__ import annotations

from pathlib import Path

import click

from expertplane_client.console import errors_in_one_line
from expertplane_server.config import ServerConfig
from expertplane_server.core.errors import ServiceError


@click.command()
@click.argument("output", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--store",
    default="",
    envvar=["EXPERTPLANE_BACKUP_STORE", "EXPERTPLANE_SERVE_STORE"],
    help="sqlite:///path, as given to serve; the file in your state directory by default.",
)
@click.option("--force", "replaces", is_flag=True, help="Replace OUTPUT if it exists.")
def backup(output: Path, store: str, replaces: bool) -> None:
    """Copy the planner's store to the file OUTPUT, while the planner runs or not.

    To restore: stop the planner, remove the store's file and those beside it that end in -wal and
    -shm, put OUTPUT in its place, start the planner.
    """
    with errors_in_one_line(ServiceError):
        from expertplane_server.store.backup import backup as copy_store

        source = ServerConfig(store=store).store_path
        copy_store(source, output, replaces=replaces)
        click.echo(f"Copied {source} to {output}, {output.stat().st_size} bytes")
