"""The program and its lazy commands."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import tomllib
from typing import Any

import click
import pytest
from click.testing import CliRunner

from expertplane_client import commands, main

from .light import REPOSITORY


@pytest.fixture
def entry_points(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Returns the commands that the program finds; a test may add to them."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    found: dict[str, str] = dict(project["entry-points"][commands.ENTRY_POINTS])
    monkeypatch.setattr(
        importlib.metadata,
        "entry_points",
        lambda group: importlib.metadata.EntryPoints(
            importlib.metadata.EntryPoint(name, value, group) for name, value in found.items()
        ),
    )
    return found


def invoke(*arguments: str) -> Any:
    """Runs the program."""
    return CliRunner().invoke(commands.program, list(arguments), prog_name="expertplane")


def test_every_command_is_listed_with_its_help(entry_points: dict[str, str]) -> None:
    """Help knows all commands of the project, though it imports none of them."""
    result = invoke("--help")

    assert result.exit_code == 0
    listed = {line.split()[0]: line.split()[1:] for line in result.output.splitlines() if line}
    assert [name for name in entry_points if not listed.get(name)] == []


def test_short_helps_are_those_of_the_commands(entry_points: dict[str, str]) -> None:
    """The list of short helps names exactly the commands that there are."""
    assert set(commands._SHORT_HELP) == set(entry_points)


def test_a_command_of_another_package_joins(entry_points: dict[str, str]) -> None:
    """Whatever is installed under the entry-point group is a command."""
    entry_points["again"] = "expertplane_client.cli:status"

    assert "again" in invoke("--help").output
    assert "Show the deployments" in invoke("again", "--help").output


@pytest.mark.parametrize("arguments", [(), ("--help",), ("--listen", "x", "y")])
def test_a_command_without_its_packages_says_what_to_install(
    entry_points: dict[str, str], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """Exit code 2 and one sentence, whatever was asked of it."""

    def load(self: importlib.metadata.EntryPoint) -> Any:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(importlib.metadata.EntryPoint, "load", load)
    result = invoke("serve", *arguments)

    assert result.exit_code == 2
    assert result.stderr == "`expertplane serve` needs: pip install 'expertplane[server]'\n"
    assert "expertplane[planner]" in invoke("plan", *arguments).stderr


def test_a_lost_module_of_ours_is_not_explained_away(
    entry_points: dict[str, str],
) -> None:
    """Installing an extra would not help, so the error stays what it is."""
    entry_points["broken"] = "expertplane_client.nowhere:command"
    result = invoke("broken")

    assert isinstance(result.exception, ModuleNotFoundError)


def test_an_unknown_command_is_a_usage_error(entry_points: dict[str, str]) -> None:
    """A slip ends with exit code 2 and names the slip."""
    result = invoke("stauts")

    assert result.exit_code == 2
    assert "stauts" in result.stderr


def test_options_come_from_the_environment(
    entry_points: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """EXPERTPLANE_<COMMAND>_<OPTION> sets any option of any command."""

    @click.command()
    @click.option("--listen")
    def serve(listen: str | None) -> None:
        click.echo(listen)

    monkeypatch.setattr(importlib.metadata.EntryPoint, "load", lambda self: serve)
    monkeypatch.setenv("EXPERTPLANE_SERVE_LISTEN", "0.0.0.0:1")
    monkeypatch.setattr(sys, "argv", ["expertplane", "serve"])

    with pytest.raises(SystemExit) as ended:
        main.main()

    assert ended.value.code == 0
    assert capsys.readouterr().out == "0.0.0.0:1\n"


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_a_command_line_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, missing: str
) -> None:
    """The base install has the program, which tells how to get the rest, with exit code 2."""
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else object()
    )

    assert main.main() == 2
    assert "pip install 'expertplane[cli]'" in capsys.readouterr().err
