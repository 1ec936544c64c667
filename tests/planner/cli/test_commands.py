"""What the offline commands have in common."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from expertplane_client.formats import read_load, write_load
from expertplane_planner import cli


if TYPE_CHECKING:
    from pathlib import Path

    import click


COMMANDS = ("compare", "plan", "sweep")
MACHINE = ("--ranks", "8", "--nodes", "2", "--expert-groups", "4")


def run(command: click.Command, *arguments: str | Path) -> Result:
    """Runs a command."""
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.mark.parametrize("name", COMMANDS)
def test_help_does_not_wait_for_torch(name: str) -> None:
    """Whoever asks for help does not pay for what only a solve needs."""
    program = (
        "import sys\n"
        "from expertplane_client.commands import program\n"
        f"program(['{name}', '--help'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules\n"
        "assert 'matplotlib' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )

    assert "LOADFILE" in done.stdout


def figures(document: Any) -> Any:
    """Returns a document without what differs from run to run."""
    if isinstance(document, dict):
        return {key: figures(value) for key, value in document.items() if key != "seconds"}
    return [figures(value) for value in document] if isinstance(document, list) else document


@pytest.mark.parametrize("input_format", [(), ("--input-format", "trtllm")], ids=["found", "said"])
def test_a_load_may_be_a_folder(load: Path, tmp_path: Path, input_format: tuple[str, ...]) -> None:
    """TensorRT-LLM's folder of statistics is planned for like the file that it was made from."""
    folder = tmp_path / "statistics"
    write_load(folder, read_load(load), output_format="trtllm")
    report = tmp_path / "report.json"
    loads: tuple[tuple[str | Path, ...], ...] = ((load,), (folder, *input_format))
    found = []
    for arguments in loads:
        compared = run(cli.compare, *arguments, *MACHINE, "--slots", "16", "--json")
        swept = run(cli.sweep, *arguments, *MACHINE, "--redundancy", "4,12", "--json")
        planned = run(cli.plan, *arguments, *MACHINE, "--slots", "16", "--report", report)
        assert [done.exit_code for done in (compared, swept, planned)] == [0, 0, 0]
        texts = (compared.stdout, swept.stdout, report.read_text())
        found.append([figures(json.loads(text)) for text in texts])

    assert found[0] == found[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_of_something_else_is_one_line(tmp_path: Path, name: str) -> None:
    """A folder that no engine wrote is told by its name."""
    (tmp_path / "holiday.txt").touch()
    size = ("--redundancy", "4") if name == "sweep" else ("--slots", "16")
    result = run(getattr(cli, name), tmp_path, *MACHINE, *size)

    assert result.exit_code == 1
    assert str(tmp_path) in result.stderr
    assert len(result.stderr.splitlines()) == 1
