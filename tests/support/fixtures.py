"""Where recorded inputs and golden outputs lie; they are not part of the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


VARIABLE = "EXPERTPLANE_FIXTURES"


def fixtures_dir() -> Path:
    """Return the folder of fixtures, or skip the calling test with a notice."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"{VARIABLE} is not set: golden files and recordings are not at hand")
    return Path(folder)
