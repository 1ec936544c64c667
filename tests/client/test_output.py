"""How tables and outputs of the commands keep what they tell."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from rich.console import Console
from rich.table import Table

from expertplane_client.cli import show
from expertplane_client.console import output, print_table


if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("columns", ["20", "80", "200"])
def test_a_narrow_terminal_cuts_no_number(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However narrow a terminal is, each cell of a table is printed in full."""
    text = io.StringIO()
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(
        output,
        "Console",
        lambda **settings: Console(file=text, force_terminal=True, color_system=None, **settings),
    )
    table = Table()
    numbers = [f"0.{digits}" for digits in range(123456, 123468)]
    for number in numbers:
        table.add_column(f"balancedness of {number}", justify="right")
    table.add_row(*numbers)

    print_table(table)

    assert all(number in text.getvalue() for number in numbers)
    assert "balancedness of 0.123456" in text.getvalue()
    assert "\N{HORIZONTAL ELLIPSIS}" not in text.getvalue()


def test_maps_are_shown_into_npz_only(tmp_path: Path) -> None:
    """A name that promises another format is refused before the planner is asked."""
    result = CliRunner().invoke(show, ["default/x", "--output", f"{tmp_path}/plan.json"])

    assert result.exit_code == 1
    assert "plan.json" in result.stderr
    assert ".npz" in result.stderr
    assert "planner" not in result.stderr
