"""Calibrated synthetic load and resampled recordings, streamed sample by sample in numpy."""

from .base import LoadTrace
from .config import PRESETS, TraceConfig
from .recorded import RecordedTrace
from .synthetic import SyntheticTrace


__all__ = ["PRESETS", "LoadTrace", "RecordedTrace", "SyntheticTrace", "TraceConfig"]
