"""How the commands speak: errors in one line, tables, JSON, pictures. Needs click and rich."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.measure import Measurement

from expertplane_client.atomic import write_atomically
from expertplane_client.errors import ExpertplaneError, FormatError


if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.table import Table

    from expertplane_client.formats import Recording


_WIDEST = 400  # columns; no table comes near


@contextlib.contextmanager
def errors_in_one_line(*more: type[Exception]) -> Iterator[None]:
    """Ends the command with exit code 1 and a red line on stderr where the client raises.

    Args:
        more: Further errors that users are told about in this way.
    """
    kinds: tuple[type[Exception], ...] = (ExpertplaneError, *more)
    try:
        yield
    except kinds as error:
        print_error(str(error))
        raise click.exceptions.Exit(1) from error


def print_error(message: str) -> None:
    """Prints an error as one red line on stderr."""
    sentence = " ".join(message.split())
    click.secho(f"Error: {sentence}", fg="red", err=True)


def print_notes(recording: Recording) -> None:
    """Prints on stderr what the reader of a recording has to say, a line each."""
    for note in recording.notes:
        click.echo(f"Note: {note}", err=True)


def print_table(table: Table) -> None:
    """Prints a table as wide as it needs to be.

    A narrow terminal breaks its lines then; cut to fit, the numbers themselves would be lost.
    """
    console = Console()
    options = console.options.update(max_width=_WIDEST)
    needed = Measurement.get(console, options, table).maximum
    Console(width=max(console.width, needed)).print(table)


def print_json(document: Any) -> None:
    """Prints what JSON can hold; no NaN and no infinity."""
    click.echo(json.dumps(document, indent=2, allow_nan=False))


def require_packages(*names: str) -> None:
    """Checks, without importing them, that packages are installed.

    Raises:
        ModuleNotFoundError: one is not; the program then says which extra brings it.
    """
    for name in names:
        if not _is_installed(name):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def require_extra(need: str, *, package: str, extra: str) -> None:
    """Ends the command with exit code 2, saying what to install, where a package is missing.

    Args:
        need: What needs it, such as "--plot".
        package: The package, which is not imported.
        extra: The extra that brings it.
    """
    if not _is_installed(package):
        click.echo(f"`{need}` needs: pip install 'expertplane[{extra}]'", err=True)
        raise click.exceptions.Exit(2)


def write_picture(path: Path, content: bytes) -> None:
    """Writes a picture as a whole or not at all.

    Raises:
        FormatError: the file cannot be written.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        raise FormatError(f"Expected to write {path}, got: {error.strerror or error}.") from error


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the parent of a dotted name
        return False
