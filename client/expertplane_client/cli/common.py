"""What the client's commands share: how they reach a planner, options, tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import click
from rich.table import Table

from expertplane_client.blocking import BlockingClient


if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


_Command = TypeVar("_Command", bound="Callable[..., Any]")

LIMIT = click.IntRange(min=1, max=1000)
VERSION = click.IntRange(min=1)
VERSION_OR_START = click.IntRange(min=0)


def connect(address: str) -> BlockingClient:
    """Returns a client for somebody at a terminal, who wants to know at once that nobody answers.

    Raises:
        InputError: the address is not in order.
    """
    return BlockingClient(address, wait_for_ready=False)


def request_id_option(command: _Command) -> _Command:
    """Adds `--request-id`."""
    return click.option(
        "--request-id",
        metavar="UUID",
        help="Repeat a call under the id of the first: it acts once. A new one by default.",
    )(command)


def expected_head_option(command: _Command) -> _Command:
    """Adds `--expected-head`."""
    return click.option(
        "--expected-head",
        type=VERSION_OR_START,
        help="Do nothing unless this is still the highest version.",
    )(command)


def new_table(*columns: str, numbers: tuple[str, ...] = ()) -> Table:
    """Returns an empty table, without lines, so that names and reasons fit into 80 columns.

    Args:
        columns: Their headers.
        numbers: Those among them whose cells are set to the right.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left")
    return table
