"""What the README says works as it is written."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..support.planner_process import run_program


if TYPE_CHECKING:
    from ..support.planner_process import PlannerProcess

README = (Path(__file__).parents[2] / "README.md").read_text()
DEFAULT_ADDRESS = "127.0.0.1:50051"
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = sorted(
    {
        line
        for block in re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
        for line in block.splitlines()
        if line.startswith("expertplane ")
    }
)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_python_examples_run(example: str, planner: PlannerProcess, tmp_path: Path) -> None:
    """Every Python example ends well when it is pasted into a file and run."""
    code = example.replace(DEFAULT_ADDRESS, planner.address)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_and_options_exist(command: str) -> None:
    """Every command shown is known, and so is every option that is shown with it."""
    _, name, *arguments = shlex.split(command)
    done = run_program(name, "--help")
    options = [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]

    assert done.returncode == 0, done.stderr
    for option in options:
        assert option in done.stdout


def test_the_readme_has_its_examples() -> None:
    """There are examples to run: offline twice, and a participant."""
    assert len(EXAMPLES) == 3
    assert len(COMMANDS) >= 9
