"""The client stays light: what importing it brings along."""

from __future__ import annotations

import pytest

from .light import run_python


HEAVY = ("torch", "numba", "triton", "prometheus_client", "expertplane_planner")


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("expertplane_client", (*HEAVY, "click", "rich", "platformdirs", "google.rpc")),
        ("expertplane_client.participant", (*HEAVY, "click", "rich", "platformdirs")),
        ("expertplane_client.formats", (*HEAVY, "click", "rich")),
        ("expertplane_client.sidecar.engine", (*HEAVY, "click", "rich")),
        ("expertplane_client.main", (*HEAVY, "click", "rich")),
        ("expertplane_client.cli", HEAVY),
    ],
)
def test_an_import_brings_nothing_heavy(module: str, forbidden: tuple[str, ...]) -> None:
    """A sidecar pays for grpcio, protobuf and numpy, and for nothing else."""
    found = run_python(
        f"import sys, {module}; print(*sorted(set({forbidden!r}) & set(sys.modules)))"
    )

    assert found.split() == []


def test_help_imports_no_command() -> None:
    """`expertplane --help` does not pay for torch, nor for any other command's packages."""
    found = run_python(
        "import sys\n"
        "from expertplane_client.commands import program\n"
        "program.main(['--help'], standalone_mode=False)\n"
        f"print('loaded:', *sorted({{*{HEAVY!r}, 'rich'}} & set(sys.modules)))"
    )

    assert found.splitlines()[-1] == "loaded:"
