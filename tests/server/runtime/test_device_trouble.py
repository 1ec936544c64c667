"""Which errors are a device's, and which are not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from expertplane_planner import InvalidInputError
from expertplane_server.runtime.device_trouble import is_device_trouble, reason_of, trouble_of
from expertplane_server.runtime.jobs import TroubleReason


if TYPE_CHECKING:
    from collections.abc import Callable

# As `triton.compiler.errors` has them, where Triton is installed.
OF_TRITON: Any = type("CompilationError", (Exception,), {"__module__": "triton.compiler.errors"})
ADVICE = (
    "\nCUDA kernel errors might be asynchronously reported.\nCompile with `TORCH_USE_CUDA_DSA`"
)

NO_ROOM = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 MiB."),
    RuntimeError("CUDA error: out of memory" + ADVICE),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
]
LOST = [
    RuntimeError("CUDA error: an illegal memory access was encountered" + ADVICE),
    RuntimeError("CUDA error: unspecified launch failure"),
    RuntimeError("CUDA driver error: device not ready"),
    RuntimeError("cuBLAS error: CUBLAS_STATUS_EXECUTION_FAILED"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR"),
    RuntimeError("Triton Error [CUDA]: device-side assert triggered"),
    RuntimeError("No CUDA GPUs are available"),
    RuntimeError("parallel_for failed: cudaErrorIllegalAddress: an illegal memory access"),
    RuntimeError("merge_sort: failed on 2nd step: cudaErrorLaunchFailure: unspecified"),
    OF_TRITON("at 3:4: no such operation"),
]
OTHERS = [
    RuntimeError("shape '[2, 3]' is invalid for input of size 7"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("Expected no CUDA error, got one"),
    ValueError("CUDA error: out of memory"),
    MemoryError(),
    InvalidInputError("device", "CUDA error"),
    KeyError("CUDA error"),
]


def _name(error: Exception) -> str:
    return f"{type(error).__name__} {str(error)[:40]}"


@pytest.mark.parametrize("error", NO_ROOM, ids=_name)
def test_no_room(error: Exception) -> None:
    """A device without room for a job is in trouble, whoever says so."""
    assert is_device_trouble(error)
    assert reason_of(error) is TroubleReason.OUT_OF_MEMORY


@pytest.mark.parametrize("error", LOST, ids=_name)
def test_lost(error: Exception) -> None:
    """A device that cannot be used is in trouble, whichever library says so."""
    assert is_device_trouble(error)
    assert reason_of(error) is TroubleReason.LOST


@pytest.mark.skipif(not hasattr(torch, "AcceleratorError"), reason="this torch has no such class")
def test_lost_by_class() -> None:
    """What torch has a class for needs no words."""
    error = torch.AcceleratorError("whatever")  # type: ignore[attr-defined,unused-ignore]

    assert is_device_trouble(error)
    assert reason_of(error) is TroubleReason.LOST


@pytest.mark.parametrize("error", OTHERS, ids=_name)
def test_none_of_a_device(error: Exception) -> None:
    """Errors of the job, or of the host's memory, are no reason to leave a device."""
    assert not is_device_trouble(error)


def _caught(raising: Callable[[], object]) -> Exception:
    try:
        raising()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_kernel_that_cannot_be_built() -> None:
    """Whatever ends Triton's work, as a full disk does, says that the device cannot be used."""
    of_triton: dict[str, Any] = {"__name__": "triton.runtime.cache"}
    exec("def put(): raise OSError(28, 'No space left on device')", of_triton)
    ours: dict[str, Any] = {"__name__": "expertplane_planner.solving"}
    exec("def put(): raise OSError(28, 'No space left on device')", ours)

    error = _caught(of_triton["put"])
    assert is_device_trouble(error)
    assert reason_of(error) is TroubleReason.LOST
    assert not is_device_trouble(_caught(ours["put"]))


def test_device_in_the_planners_words() -> None:
    """The planner calls a device that it cannot open an invalid input; torch knows better."""
    error = InvalidInputError("device", "Expected a device that torch can use here")
    error.__cause__ = RuntimeError("CUDA error: an illegal memory access was encountered")

    assert is_device_trouble(error)
    assert trouble_of(error, "cuda:0").error.startswith("RuntimeError: CUDA error: an illegal")


def test_what_is_told() -> None:
    """One line, and not a long one: torch adds several of advice."""
    told = trouble_of(RuntimeError("CUDA error: lost" + ADVICE), torch.device("cuda:0"))
    assert (told.device, told.reason) == ("cuda:0", TroubleReason.LOST)
    assert told.error == "RuntimeError: CUDA error: lost"

    long = trouble_of(RuntimeError("CUDA error: " + 9999 * "x"), "cuda:0")
    assert len(long.error) == 300
