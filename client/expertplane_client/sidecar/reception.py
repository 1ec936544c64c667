"""Where the ports bring what an engine says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol


if TYPE_CHECKING:
    from .dialogue import Applied, EngineHello, Load, Refused, Staged


class Reception(Protocol):
    """Takes what an engine says; what it raises is told to the engine and changes nothing."""

    def come(self, hello: EngineHello) -> None:
        """Takes an engine that has come, or come back.

        Raises:
            InputError: the engine cannot be taken.
        """

    def go(self) -> None:
        """Notes that the engine is gone."""

    def answer(self, message: Staged | Applied | Refused) -> bool:
        """Takes an answer; False when nothing of the kind was asked."""

    def report(self, load: Load) -> None:
        """Takes load samples.

        Raises:
            InputError: they cannot be sent.
        """

    def complain(self, message: str) -> None:
        """Notes that an engine has said what could not be taken."""
