"""The group of commands, which any installed package may add to. Needs click.

A command is imported when it is run, not when it is listed: `expertplane --help` must not pay for
torch, and must work when the package of a command is there but what it needs is not.
"""

from __future__ import annotations

import importlib.metadata
from types import MappingProxyType
from typing import TYPE_CHECKING

import click


if TYPE_CHECKING:
    from collections.abc import Mapping


ENTRY_POINTS = "expertplane.commands"

_SHORT_HELP: Mapping[str, str] = MappingProxyType(
    {
        "backup": "Copy the planner's store while it runs.",
        "compare": "Compare policies on a recorded load.",
        "compute-plan": "Let a running planner plan for a recorded load.",
        "demo": "Run a planner and simulated participants in one process.",
        "deployments": "List, create, change and delete deployments.",
        "diff": "Show what changes from one plan to another.",
        "explain": "Show what the planner decided, and why.",
        "export": "Write a plan to a file for an engine.",
        "health": "Ask a planner whether it serves.",
        "pause": "Stop the planner from publishing plans by itself.",
        "plan": "Plan for a recorded load, here and now.",
        "plans": "List the plans of a deployment.",
        "publish": "Publish a placement of your own.",
        "rebalance": "Have the planner decide now.",
        "replay": "Compare policies on load that they have not seen.",
        "resume": "Let the planner publish plans by itself again.",
        "rollback": "Publish an earlier plan again.",
        "serve": "Run the planner.",
        "show": "Show a plan, or write it to a file.",
        "sidecar": "Speak for an engine: hand load up and plans down.",
        "simulate": "Run simulated participants against a planner.",
        "status": "Show the deployments of a planner.",
        "sweep": "Show what redundant experts, or foreign replicas, buy on a recorded load.",
        "trace": "Write synthetic load.",
        "watch": "Print plans as they are committed.",
    }
)
_EXTRAS: Mapping[str, str] = MappingProxyType(
    {
        "expertplane_client": "cli",
        "expertplane_client.sidecar.command": "sidecar",
        "expertplane_planner": "planner",
        "expertplane_server": "server",
    }
)


class LazyCommands(click.Group):
    """A group whose commands are the entry points `expertplane.commands`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of all commands, importing none."""
        return sorted(entry.name for entry in _entry_points())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command; one whose packages are missing becomes a note on how to get them."""
        for entry in _entry_points():
            if entry.name == cmd_name:
                return _load(entry)
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the list of commands from what is known without importing them."""
        rows = [(name, _SHORT_HELP.get(name, "")) for name in self.list_commands(ctx)]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


def _entry_points() -> importlib.metadata.EntryPoints:
    return importlib.metadata.entry_points(group=ENTRY_POINTS)


def _load(entry: importlib.metadata.EntryPoint) -> click.Command:
    try:
        command = entry.load()
    except ModuleNotFoundError as error:
        return _unavailable(entry, error)
    assert isinstance(command, click.Command), f"{entry.value} is no click command"
    return command


def _unavailable(
    entry: importlib.metadata.EntryPoint, error: ModuleNotFoundError
) -> click.Command:
    package = entry.module.partition(".")[0]
    missing = (error.name or "").partition(".")[0]
    extra = _EXTRAS.get(entry.module, _EXTRAS.get(package))
    if extra is None or missing in _EXTRAS:
        # A package of somebody else, or a module of ours that is lost: nothing to install helps.
        raise error

    def explain() -> None:
        click.echo(
            f"`expertplane {entry.name}` needs: pip install 'expertplane[{extra}]'", err=True
        )
        raise click.exceptions.Exit(2)

    return click.Command(
        entry.name,
        callback=explain,
        # Whatever follows, a request for help included, gets the same answer.
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        add_help_option=False,
    )


@click.group(cls=LazyCommands)
@click.version_option(package_name="expertplane")
def program() -> None:
    """Placement control plane for Mixture-of-Experts inference."""
