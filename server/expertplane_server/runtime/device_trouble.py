"""Which errors mean that a device cannot be planned on. For the solver process: imports torch."""

from __future__ import annotations

import re
import traceback

import torch

from expertplane_planner import InvalidInputError
from expertplane_server.runtime.jobs import Trouble, TroubleReason


_TOLD_BY_CLASS: tuple[type[Exception], ...] = (
    torch.cuda.OutOfMemoryError,
    *((torch.AcceleratorError,) if hasattr(torch, "AcceleratorError") else ()),
)
# What torch, the libraries that it calls, and Triton begin their messages with. The classes are
# not enough: releases before 2.8 have none for a lost device, and Triton has none to this day.
_LOST = re.compile(
    r"CUDA (driver |runtime |kernel )?error|CUDA out of memory|No CUDA GPUs|NVML|NCCL"
    r"|cu(BLAS|SOLVER|SPARSE|DNN|FFT) error|CUBLAS_STATUS|CUDNN_STATUS|Triton Error \[CUDA\]"
    r"|\w+( failed)?: (failed on \w+ step: )?cudaError",  # of thrust and cub
    flags=re.IGNORECASE,
)
_NO_ROOM = re.compile(
    r"out of memory|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|OUT_OF_MEMORY"
)
_MAX_ERROR_CHARS = 300


def is_device_trouble(error: BaseException) -> bool:
    """Tells whether an error says that the device has no room, or cannot be used any more.

    A kernel that Triton cannot build for the device counts as well, for want of whatever, such as
    room on disk: the CPU can do without.
    """
    error = cause_of(error)
    if isinstance(error, _TOLD_BY_CLASS) or _is_of_triton(error):
        return True
    return isinstance(error, RuntimeError) and _LOST.match(str(error)) is not None


def cause_of(error: BaseException) -> BaseException:
    """Returns what torch said, where the planner has put it into words of its own."""
    if isinstance(error, InvalidInputError) and error.__cause__ is not None:
        return error.__cause__
    return error


def reason_of(error: BaseException) -> TroubleReason:
    """Returns what kind of trouble an error is."""
    error = cause_of(error)
    is_no_room = isinstance(error, torch.cuda.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and _NO_ROOM.search(_first_line(error)) is not None
    )
    return TroubleReason.OUT_OF_MEMORY if is_no_room else TroubleReason.LOST


def trouble_of(error: BaseException, device: torch.device | str) -> Trouble:
    """Returns what the service is told of an error of a device."""
    error = cause_of(error)
    line = f"{type(error).__name__}: {_first_line(error)}"
    return Trouble(device=str(device), reason=reason_of(error), error=line[:_MAX_ERROR_CHARS])


def _is_of_triton(error: BaseException) -> bool:
    """Tells whether an error is one of Triton's own, which may not be installed, or left it."""
    named = [kind.__module__ for kind in type(error).__mro__]
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    named += [str(frame.f_globals.get("__name__", "")) for frame in frames]
    return any(name.partition(".")[0] == "triton" for name in named)


def _first_line(error: BaseException) -> str:
    """Returns the first line of a message; torch adds several on what to try."""
    return str(error).partition("\n")[0]
