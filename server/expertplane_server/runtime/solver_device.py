"""Which device the solver process plans on, and how it is doing. Imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from expertplane_planner import warm_up
from expertplane_server.core.errors import UnavailableError
from expertplane_server.runtime.device_trouble import trouble_of
from expertplane_server.runtime.jobs import DeviceStatus, Trouble


if TYPE_CHECKING:
    from expertplane_server.runtime.device_faults import DeviceFaults

CPU = torch.device("cpu")


def open_device(
    wanted: str, *, insists: bool, faults: DeviceFaults
) -> tuple[torch.device, Trouble | None]:
    """Returns the device to plan on, all that is compiled for it compiled.

    Args:
        wanted: "auto", which takes the first CUDA device, else the CPU; "cpu" or "cuda:N".
        insists: there is to be no other than "cuda:N".
        faults: what may play the device.

    Returns:
        The device, and what was the matter with another that was to be had.

    Raises:
        UnavailableError: the CPU is no alternative, or fails as well.
    """
    device = _pick(wanted, faults.stand_in)
    try:
        faults.before_warm_up(device)
        warm_up(device)
    except Exception as error:  # whatever it is, the device is of no use
        trouble = trouble_of(error, device)
        if device == CPU or (insists and wanted != "auto"):
            raise UnavailableError(trouble.error, reason="SOLVER_UNAVAILABLE") from error
    else:
        return device, None
    let_go_of(device)
    warm_up(CPU)
    return CPU, trouble


def status_of(device: torch.device) -> DeviceStatus:
    """Returns how a device is doing; does not wait for it."""
    if device.type != "cuda":
        return DeviceStatus(device=str(device))
    about = torch.cuda.get_device_properties(device)
    return DeviceStatus(
        device=str(device),
        name=about.name,
        used_bytes=torch.cuda.memory_reserved(device),
        total_bytes=about.total_memory,
    )


def let_go_of(device: torch.device) -> None:
    """Gives back the memory of a device that is not planned on any more, as far as it lets us."""
    if device.type != "cuda":
        return
    try:
        torch.cuda.empty_cache()
    except RuntimeError:  # it is lost, and its memory with it
        return


def _pick(wanted: str, stand_in: torch.device | None) -> torch.device:
    """Returns the device that is asked for, which may not be there."""
    if wanted == "cpu":
        return CPU
    if stand_in is not None:
        return stand_in
    if wanted == "auto":
        return torch.device("cuda:0") if torch.cuda.is_available() else CPU
    return torch.device(wanted)
