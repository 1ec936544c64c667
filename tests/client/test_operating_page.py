"""The page for operators shows commands that there are."""

from __future__ import annotations

import re
import shlex

import click
import pytest

from expertplane_client import cli

from .light import REPOSITORY


PAGE = (REPOSITORY / "docs" / "operating.md").read_text()
LINES = [
    line
    for block in re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.parametrize("line", LINES)
def test_a_command_of_the_page_is_understood(line: str) -> None:
    """Name, arguments and options of every command on the page are those of the program."""
    program, name, *arguments = shlex.split(line)
    assert program == "expertplane"
    command = getattr(cli, name.replace("-", "_"))
    while isinstance(command, click.Group):
        command = command.commands[arguments.pop(0)]

    context = command.make_context(name, arguments)

    assert context.params


def test_the_page_shows_every_order() -> None:
    """Whatever changes something is on the page."""
    shown = {shlex.split(line)[1] for line in LINES}
    orders = {"deployments", "export", "pause", "publish", "rebalance", "resume", "rollback"}

    assert orders | {"diff", "status", "plans", "show", "watch", "explain"} == shown
