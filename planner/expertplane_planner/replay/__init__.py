"""Policies driven over a trace, out of sample: planned on the past, scored on what came next."""

from .replaying import ORACLE, STATIC, replay
from .report import ReplayReport, ReplayRow


__all__ = ["ORACLE", "STATIC", "ReplayReport", "ReplayRow", "replay"]
