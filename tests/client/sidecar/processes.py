"""Sidecars and engines in processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import TYPE_CHECKING

from ..light import REPOSITORY
from ..scripted_planner import PATIENCE_S


if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from expertplane_client.sidecar.config import SidecarConfig


_ROOTS = ("proto", "client")
_COMMAND = "from expertplane_client.sidecar.command import sidecar; sidecar()"


def write_config(path: Path, settings: SidecarConfig) -> None:
    """Writes settings as an operator does."""
    path.write_text(
        f"""
planner = "{settings.planner}"
deployment = "{settings.deployment}"
participant_id = "{settings.participant_id}"
ranks = {list(settings.ranks)}
cache = "{settings.cache}"
metrics = "127.0.0.1:0"
health = "127.0.0.1:0"
[handoff]
kind = "{settings.handoff.kind}"
path = "{settings.handoff.path}"
"""
    )


@contextlib.asynccontextmanager
async def program(*arguments: str | Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Runs Python on something of the repository, and kills it in the end."""
    path = os.pathsep.join(str(REPOSITORY / root) for root in _ROOTS)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env=os.environ | {"PYTHONPATH": path},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@contextlib.asynccontextmanager
async def sidecar(
    folder: Path, settings: SidecarConfig
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Runs `expertplane sidecar` until it is ready, and for the time of the block."""
    config = folder / "sidecar.toml"
    write_config(config, settings)
    async with program("-c", _COMMAND, "--config", config, "--log-format", "json") as process:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = await process.stdout.readline()
        assert b"sidecar is ready" in line, line
        yield process


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str]:
    """Waits for the end; returns the exit code and what is on stderr."""
    async with asyncio.timeout(PATIENCE_S):
        _, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, errors.decode()
