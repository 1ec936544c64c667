"""Launches without a device: all that happens before a kernel runs, with tensors of the CPU.

Triton specialises and compiles a kernel for the arguments that a launcher hands it; that needs no
GPU. What would load the binary and run it is replaced here by a note of what was launched. Not
where TRITON_INTERPRET is set: there kernels are something else.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest


if TYPE_CHECKING:
    from collections.abc import Iterator


HOPPER = 90


@dataclass(frozen=True, kw_only=True)
class Launch:
    """A launch that did not take place; registers and stack bytes are those of a thread."""

    kernel: str
    grid: tuple[int, ...]
    num_warps: int
    ptx: str
    num_registers: int
    num_stack_bytes: int
    num_shared_bytes: int


@contextlib.contextmanager
def dry_launches(arch: int = HOPPER) -> Iterator[list[Launch]]:
    """Note launches instead of making them.

    Args:
        arch: Compute capability of the CUDA device to compile for, times ten.
    """
    from triton.backends.compiler import GPUTarget
    from triton.compiler import CompiledKernel
    from triton.runtime import driver

    launches: list[Launch] = []

    class Driver:
        def get_current_target(self) -> Any:
            return GPUTarget("cuda", arch, 32)

        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, _: int) -> int:
            return 0

    def launcher(kernel: Any) -> Any:
        def note(*grid_and_arguments: Any) -> None:
            resources = _resources(kernel.asm["cubin"])
            launches.append(
                Launch(
                    kernel=kernel.metadata.name,
                    grid=grid_and_arguments[:3],
                    num_warps=kernel.metadata.num_warps,
                    ptx=kernel.asm["ptx"],
                    num_registers=resources["REG"],
                    num_stack_bytes=resources["STACK"],
                    num_shared_bytes=resources["SHARED"],
                )
            )

        return note

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "_active", Driver())
        patch.setattr(CompiledKernel, "run", property(launcher))
        patch.setattr(CompiledKernel, "launch_metadata", lambda *_: None)
        yield launches


def _resources(cubin: bytes) -> dict[str, int]:
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"\b(REG|STACK|SHARED):(\d+)", text)
    return {name: int(value) for name, value in found}


def run_uninterpreted(script: str, *, timeout_s: float = 150.0) -> str:
    """Run a script in a process of its own, where Triton compiles; return what it printed."""
    root = Path(__file__).parents[2]
    cache = f"os.environ.setdefault('TRITON_CACHE_DIR', {str(root / 'build' / 'triton')!r})"
    begin = f"import os, sys; os.environ.pop('TRITON_INTERPRET', None); {cache}\n"
    folders = [str(root), *(str(root / name) for name in ("proto", "planner"))]
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{begin}sys.path[:0] = {folders}\n{script}"],
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
