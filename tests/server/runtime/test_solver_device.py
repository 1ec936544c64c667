"""Which device the solver process takes, and devices that fail because a test wants them to."""

from __future__ import annotations

import pytest
import torch

from expertplane_planner import solve_many
from expertplane_server.core.errors import InvalidArgumentError, UnavailableError
from expertplane_server.runtime import solver_device
from expertplane_server.runtime.device_faults import STAND_IN, DeviceFaults
from expertplane_server.runtime.jobs import Answer, Told, Trouble, TroubleReason
from expertplane_server.runtime.solver_device import CPU, open_device
from expertplane_server.runtime.solver_worker import Worker

from .test_forecasts import ref, solve_job, window
from .test_solver_trouble import Planning


def opened(wanted: str, fault: str = "", *, insists: bool = False) -> tuple[str, Trouble | None]:
    """Return the device that is opened, and what is told of another."""
    device, trouble = open_device(wanted, insists=insists, faults=DeviceFaults(fault))
    return str(device), trouble


@pytest.fixture
def warmed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The devices that were warmed up, in order; nothing is solved for it."""
    seen: list[str] = []
    monkeypatch.setattr(solver_device, "warm_up", lambda device: seen.append(str(device)))
    return seen


def test_device_is_warm_before_it_is_used(warmed: list[str]) -> None:
    """Whatever the device, it is warmed up before the process says that it is ready."""
    assert opened("cpu") == ("cpu", None)
    assert opened("auto", "lost") == ("cpu:0", None)
    assert opened("cuda:3", "lost", insists=True) == ("cpu:0", None)
    assert warmed == ["cpu", "cpu:0", "cpu:0"]


def test_device_that_fails_in_its_warm_up(warmed: list[str]) -> None:
    """The CPU is taken, warm as well, and the trouble is told of."""
    device, trouble = opened("auto", "warm_up")
    assert device == "cpu"
    assert warmed == ["cpu"]
    assert trouble is not None
    assert (trouble.device, trouble.reason) == ("cpu:0", TroubleReason.LOST)
    assert trouble.error.startswith("RuntimeError: CUDA error")
    assert opened("auto", "warm_up", insists=True)[0] == "cpu"
    assert opened("cuda:0", "warm_up")[0] == "cpu"


def test_device_that_is_insisted_on() -> None:
    """Who names a device gets no other."""
    with pytest.raises(UnavailableError, match="CUDA error"):
        opened("cuda:0", "warm_up", insists=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_no_device(warmed: list[str]) -> None:
    """Where there is none, auto means the CPU, without a word."""
    assert opened("auto") == ("cpu", None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no device")
def test_real_device() -> None:
    """A CUDA device is opened, tells its name and memory, and plans like the CPU."""
    device, trouble = open_device("auto", insists=True, faults=DeviceFaults())
    jobs = [solve_job(window(seed), ref(f"a/{seed}", is_new=True)) for seed in range(4)]
    said = [each for each in Worker(device).tell(jobs) if isinstance(each, Told)]

    assert (str(device), trouble) == ("cuda:0", None)
    assert len(said) == 4
    for each in said:
        assert isinstance(each.reply, Answer)
        assert each.reply.solution.gain > 0
        assert each.status.name != ""
        assert 0 < each.status.used_bytes < each.status.total_bytes


@pytest.mark.parametrize("setting", ["lost:0", "lost:x", "fire", "lost:1:2", ":1"])
def test_fault_that_there_is_not(setting: str) -> None:
    """A misspelt fault is refused, not overlooked."""
    with pytest.raises(InvalidArgumentError, match="EXPERTPLANE_DEVICE_FAULT"):
        DeviceFaults(setting)


def test_fault_in_time() -> None:
    """A fault comes at its time, on the stand-in alone, and once."""
    faults = DeviceFaults("out_of_memory:2")
    plan = faults.around(Planning())
    plan([], device=CPU)
    plan([], device=STAND_IN)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        plan([], device=STAND_IN)
    plan([], device=STAND_IN)

    unset = DeviceFaults.from_environment({})
    assert unset.stand_in is None
    assert unset.around(solve_many) is solve_many
