"""The base install, made from a wheel in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from typing import TYPE_CHECKING

import pytest

from .light import REPOSITORY


if TYPE_CHECKING:
    from pathlib import Path


pytestmark = [pytest.mark.network, pytest.mark.timeout(600)]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a command without the paths that the tests themselves import from."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the scripts of a fresh environment with the base install; skips offline."""
    folder = tmp_path_factory.mktemp("base")
    wheels = folder / "wheels"
    build = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation")
    built = run(*build, "--wheel-dir", wheels, REPOSITORY)
    assert built.returncode == 0, built.stderr
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    probe = run(python, "-m", "pip", "download", "--no-deps", "--dest", folder, "iniconfig")
    if probe.returncode != 0 and os.environ.get("CI") != "true":
        pytest.skip("the package registry cannot be reached")
    (wheel,) = wheels.glob("expertplane-*.whl")
    installed = run(python, "-m", "pip", "install", "--quiet", wheel)
    assert installed.returncode == 0, installed.stderr
    return python.parent


def test_the_client_needs_only_the_base_install(scripts: Path) -> None:
    """Client and stubs import without a warning, and torch is nowhere near."""
    done = run(
        scripts / "python",
        "-W",
        "error",
        "-c",
        "import expertplane_client, expertplane_client.formats, importlib.util\n"
        "from expertplane.v1 import placement_service_pb2_grpc, plan_service_pb2_grpc\n"
        "names = ('torch', 'click', 'rich', 'prometheus_client')\n"
        "print([name for name in names if importlib.util.find_spec(name)])",
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_the_program_says_what_to_install(scripts: Path) -> None:
    """`expertplane` exists, and tells how to get its commands."""
    done = run(scripts / "expertplane", "status")

    assert done.returncode == 2
    assert "pip install 'expertplane[cli]'" in done.stderr
