"""Modules and functions stay small enough to be read at once."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60
MODULES = sorted(
    path
    for folder in ("planner", "server", "client", "proto", "tests")
    for path in (ROOT / folder).rglob("*.py")
    if "_pb2" not in path.name
)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_fit(path: Path) -> None:
    """No module is longer than 400 lines, no function longer than 60 lines."""
    text = path.read_text()
    long_functions = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    }

    assert text.count("\n") <= MAX_MODULE_LINES
    assert not long_functions
