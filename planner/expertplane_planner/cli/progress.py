"""A progress bar for whoever is watching. Needs rich."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


if TYPE_CHECKING:
    from collections.abc import Iterator


class Announce(Protocol):
    """Is told what begins; what began before has ended."""

    def __call__(self, step: str) -> None:
        """Shows the step."""
        ...


@contextlib.contextmanager
def progress(num_steps: int) -> Iterator[Announce]:
    """Shows a bar on stderr while it is open, and nothing where stderr is no terminal.

    Args:
        num_steps: Steps that will be announced.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    num_begun = 0
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=num_steps)

        def announce(step: str) -> None:
            nonlocal num_begun
            bar.update(task, description=escape(step), completed=num_begun)
            num_begun += 1

        yield announce
