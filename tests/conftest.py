"""Where no CUDA device is at hand, Triton kernels run in Triton's interpreter.

Said here, since Triton asks once, when a kernel's module is imported.
"""

from __future__ import annotations

import os

import torch


if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
