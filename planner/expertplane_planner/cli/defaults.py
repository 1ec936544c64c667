"""What the offline commands do unless told otherwise."""

from __future__ import annotations

from typing import Final


DEFAULT_POLICY: Final = "balanced"
"""The policy of choice, see `docs/policies.md`; the planner service has a default of its own."""
