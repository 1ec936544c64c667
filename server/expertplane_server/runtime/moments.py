"""A named moment, and which time that it comes by is meant, as tests put it into a variable."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from expertplane_server.core.errors import InvalidArgumentError


if TYPE_CHECKING:
    from collections.abc import Sequence

_SETTING = re.compile(r"(?P<name>[a-z_]+)(:(?P<count>[1-9][0-9]{0,5}))?")


def parse_moment(setting: str, variable: str, names: Sequence[str]) -> tuple[str, int]:
    """Returns the moment and the time that is meant, from 1 on; no moment for an empty setting.

    Args:
        setting: "NAME" or "NAME:N".
        variable: of the environment, where the setting is from.
        names: of all moments.

    Raises:
        InvalidArgumentError: there is no such moment, or N is no such number.
    """
    if not setting:
        return "", 0
    match = _SETTING.fullmatch(setting)
    if match is None or match["name"] not in names:
        raise InvalidArgumentError(
            f"Expected {variable} to be NAME or NAME:N, N from 1 on, NAME one of "
            f"{', '.join(names)}, got {setting!r}.",
            field=variable,
        )
    return match["name"], int(match["count"] or 1)
