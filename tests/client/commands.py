"""Runs the client's commands."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner, Result


if TYPE_CHECKING:
    import click


async def run(command: click.Command, *arguments: str, env: Any = None) -> Result:
    """Runs a command in a thread, while the planner serves in this one."""
    return await asyncio.to_thread(
        CliRunner().invoke, command, list(arguments), env=env or {}, catch_exceptions=False
    )
