"""`expertplane simulate`, as far as it goes without a planner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from click.testing import CliRunner

from expertplane_server.cli.simulate import simulate


if TYPE_CHECKING:
    from pathlib import Path


def test_the_input_format_is_what_is_said(tmp_path: Path) -> None:
    """A recording that is not what it is said to be is refused by name, in one line."""
    load = tmp_path / "load.npz"
    np.savez(load, weight=np.ones((2, 64), dtype=np.int64))
    arguments = ["--load", str(load), "--address", "127.0.0.1:1"]
    result = CliRunner().invoke(simulate, [*arguments, "--input-format", "sglang-json"])

    assert result.exit_code == 1
    assert "load.npz" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_help_names_every_mode() -> None:
    """What the modes are is told of all of them, and who chooses where nobody does."""
    text = " ".join(CliRunner().invoke(simulate, ["--help"]).stdout.replace("-\n", "-").split())

    assert "Keep expert groups on their node (hierarchical), all but some replicas" in text
    assert "the planner's default if empty." in text
