"""What the offline commands do unless told otherwise."""

from __future__ import annotations

from typing import Final


DEFAULT_POLICY: Final = "robust"
"""That of the library, written down here because importing the library imports torch."""
