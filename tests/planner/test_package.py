"""The package's front door."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import expertplane_planner


def test_the_front_door_does_not_import_torch() -> None:
    """Importing the package costs no torch; naming the facade does, and finds the function."""
    program = (
        "import sys, expertplane_planner as package\n"
        "assert 'torch' not in sys.modules\n"
        "assert callable(package.solve) and 'torch' in sys.modules"
    )

    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_public_name_is_there() -> None:
    """What is promised can be imported, type checkers see the same, and no submodule hides it."""
    tree = ast.parse(Path(expertplane_planner.__file__).read_text())
    seen_by_checkers = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }
    assert seen_by_checkers == set(expertplane_planner.__all__)
    assert set(expertplane_planner.__all__) <= set(dir(expertplane_planner))
    for name in expertplane_planner.__all__:
        assert getattr(expertplane_planner, name).__module__.startswith("expertplane_planner.")
        assert not Path(expertplane_planner.__file__).with_name(f"{name}.py").exists()


def test_an_unknown_name() -> None:
    """A name that is not there is refused as of any module."""
    with pytest.raises(AttributeError, match="got 'nothing'"):
        _ = expertplane_planner.nothing  # type: ignore[attr-defined]
