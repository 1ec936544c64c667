"""Which leg runs, what it needs, and that rows are shared out to threads without loss."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

import expertplane_planner
from expertplane_planner import kernels, solve
from expertplane_planner.kernels import numba_cpu
from expertplane_planner.kernels.threads import num_kernel_threads, single_threaded_ops

from ...support import builders


if TYPE_CHECKING:
    from collections.abc import Iterator


WITHOUT_NUMBA = """
import sys
sys.modules["numba"] = None  # as if it were not installed
from expertplane_planner import ExpertLoad, Topology, solve
import torch
weight = torch.tensor({weight})
topology = Topology(num_nodes=2, num_ranks=8, num_slots=16)
for name in {policies}:
    load = ExpertLoad.from_weight(weight)
    print(solve(load, topology, num_expert_groups=4, policy=name).digest)
assert "expertplane_planner.kernels.numba_cpu" not in sys.modules
"""


UNCACHED = """
import torch, expertplane_planner
from expertplane_planner.kernels import numba_cpu
ones = torch.ones(1, 2, dtype=torch.int64)
counts = numba_cpu.grant_replicas(torch.ones(1, 2), ones, 1, slope=1, max_count=2)[2]
print(expertplane_planner.__path__[0], numba_cpu._grant.stats.cache_path, counts[0].tolist())
"""


def test_without_numba_every_policy_gives_the_same_plans() -> None:
    """A process that cannot import numba plans the same, in torch alone."""
    policies = ["deepseek", "balanced", "hybrid"]
    script = WITHOUT_NUMBA.format(weight=builders.README_WEIGHT, policies=policies)

    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    digests = [
        solve(
            builders.readme_load(), builders.readme_topology(), num_expert_groups=4, policy=name
        ).digest
        for name in policies
    ]
    assert result.stdout.split() == digests


def test_the_leg_follows_the_device() -> None:
    """Tensors on the CPU go to compiled loops, all others to torch."""
    assert kernels._is_compiled(torch.ones(1))
    assert not kernels._is_compiled(torch.ones(1, device="meta"))


def test_a_kernel_without_a_place_on_disk_is_compiled_all_the_same() -> None:
    """Code from no file has nowhere to be cached; it is compiled and runs."""
    scope: dict[str, Any] = {}
    exec("def double(x):\n    return 2 * x\n", scope)

    assert numba_cpu.compiled(scope["double"])(21) == 42


def test_an_installation_that_cannot_be_written_to_plans(tmp_path: Path) -> None:
    """Without a folder for compiled code, beside the sources or at home, kernels work too."""
    package = tmp_path / "expertplane_planner"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(expertplane_planner.__file__).parent, package, ignore=ignored)
    (package / "kernels" / "__pycache__").touch()  # where numba wants a folder
    nowhere = f"{os.devnull}/home"

    result = subprocess.run(
        [sys.executable, "-c", UNCACHED],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(tmp_path), "HOME": nowhere, "XDG_CACHE_HOME": nowhere},
    )

    assert result.stdout.split() == [str(package), "None", "[2,", "1]"]


@pytest.fixture
def threads() -> Iterator[None]:
    """Put the number of threads back afterwards."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("num_threads", [1, 2, 3, 8])
@pytest.mark.parametrize("num_rows", [1, 2, 3, 7])
def test_each_row_is_worked_on_once(num_threads: int, num_rows: int) -> None:
    """With fewer, as many and more threads than rows, the parts cover every row once."""
    torch.set_num_threads(num_threads)
    rows: list[int] = []

    numba_cpu.over_rows(num_rows, rows.extend)

    assert sorted(rows) == list(range(num_rows))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("bad_row", [0, 3])
def test_what_a_thread_raises_is_raised(bad_row: int) -> None:
    """A failure in the caller's own part or in another thread's does not get lost."""
    torch.set_num_threads(4)

    def work(rows: range) -> None:
        if bad_row in rows:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        numba_cpu.over_rows(4, work)


@pytest.mark.usefixtures("threads")
def test_overlapping_callers_give_torch_its_threads_back() -> None:
    """Of two that overlap, none takes the other's one thread for what torch had."""
    torch.set_num_threads(4)
    seen: list[int] = []
    entered, may_leave = threading.Event(), threading.Event()

    def late() -> None:
        with single_threaded_ops():
            seen.extend((torch.get_num_threads(), num_kernel_threads()))
            entered.set()
            may_leave.wait()

    with single_threaded_ops():
        assert (torch.get_num_threads(), num_kernel_threads()) == (1, 4)
        other = threading.Thread(target=late)
        other.start()
        entered.wait()
    may_leave.set()
    other.join()
    assert seen == [1, 4]
    assert torch.get_num_threads() == 4
    fresh = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    fresh.start()
    fresh.join()
    assert seen[2:] == [4]


@pytest.mark.usefixtures("threads")
def test_the_number_of_threads_does_not_matter() -> None:
    """One thread and five give the same bytes."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(7, 24, generator=generator, dtype=torch.float64)
    kind = torch.randint(0, 12, (7, 24), generator=generator)
    packed = []
    for num_threads in (1, 5):
        torch.set_num_threads(num_threads)
        packed.append(kernels.pack_distinct(weight, kind, 4, max_swaps=50, tolerance=0.0))

    assert torch.equal(*packed)
