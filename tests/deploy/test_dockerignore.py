from __future__ import annotations

import re
import tomllib

import pytest

from .kustomize import ROOT


PATTERNS = [
    line
    for line in (ROOT / ".dockerignore").read_text().splitlines()
    if line and not line.startswith("#")
]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def reaches_the_build(path: str) -> bool:
    """Tells whether the builder is sent a file: the last pattern that matches decides."""
    parts = path.split("/")
    names = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    is_sent = True
    for pattern in PATTERNS:
        # A pattern that matches a folder matches what is in it.
        if any(_expression(pattern.removeprefix("!")).fullmatch(name) for name in names):
            is_sent = pattern.startswith("!")
    return is_sent


def _expression(pattern: str) -> re.Pattern[str]:
    text = re.escape(pattern).replace(r"\[", "[").replace(r"\]", "]")
    return re.compile(text.replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*"))


@pytest.mark.parametrize(
    "path",
    [
        ".git/HEAD",
        ".venv/bin/python",
        "build/generator/pyvenv.cfg",
        "deploy/README.md",
        "tests/__init__.py",
        "client/expertplane_client/__pycache__/main.cpython-312.pyc",
        "client/expertplane_client/main.pyc",
        "proto/generate.py",
        ".env",
        "planner.db",
    ],
)
def test_what_an_image_does_not_need_stays_outside(path: str) -> None:
    """History, environments, tests, build outputs and whatever else lies about are not sent."""
    assert not reaches_the_build(path)


def test_what_the_wheel_is_made_of_reaches_the_build() -> None:
    """Every file that the project's metadata and its packages name is sent."""
    project, wheel = PYPROJECT["project"], PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    modules = [
        path.relative_to(ROOT).as_posix()
        for package in wheel["packages"]
        for path in (ROOT / package).rglob("*.py*")
        if "__pycache__" not in path.parts
    ]

    needed = ["pyproject.toml", project["readme"], *project["license-files"], *modules]

    assert len(modules) > len(wheel["packages"])
    assert [path for path in needed if not reaches_the_build(path)] == []
