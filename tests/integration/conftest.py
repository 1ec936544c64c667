from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ..support.planner_process import PlannerProcess, running_planner


if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def planner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlannerProcess]:
    """A planner process that tests share; each uses a deployment of its own."""
    with running_planner(tmp_path_factory.mktemp("planner"), options=["--reflection"]) as process:
        yield process
