"""Content that cannot be read is damage, whatever it was that stumbled over it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from expertplane_server.core.errors import InvalidArgumentError
from expertplane_server.store.base import StoreDamagedError


if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def damage_in(what: str) -> Iterator[None]:
    """Turns whatever a codec stumbles over into damage.

    Raises:
        StoreDamagedError: the content is not what the codec wrote.
    """
    try:
        yield
    except (ValueError, TypeError, KeyError, InvalidArgumentError) as error:
        raise StoreDamagedError(
            f"Expected to read {what}, got {type(error).__name__}: {error}."
        ) from error
