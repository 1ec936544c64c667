"""The names that the wire allows, and the bare names of its enums."""

from __future__ import annotations

import re
from typing import Protocol

from expertplane.v1 import deployment_pb2

from .errors import InputError


_DEPLOYMENT = re.compile(r"[a-z0-9.-]{1,63}/[a-z0-9.-]{1,63}")
_TOKEN = re.compile(r"[a-zA-Z0-9._-]{1,128}")


class EnumWrapper(Protocol):
    """What protobuf offers for an enum type."""

    def Name(self, number: int) -> str:  # noqa: N802, RUF100 - protobuf's spelling
        """Returns the full name of a value, or raises ValueError."""
        ...


def check_deployment(name: str) -> str:
    """Returns the name of a deployment when it is in order.

    Raises:
        InputError: it is not "namespace/name" with both parts matching [a-z0-9.-]{1,63}.
    """
    if not _DEPLOYMENT.fullmatch(name):
        raise InputError(
            "Expected deployment to be 'namespace/name', both matching [a-z0-9.-]{1,63}, "
            f"got {name!r}."
        )
    return name


def check_token(field: str, value: str) -> str:
    """Returns the id of a participant or of an engine's run when it is in order.

    Raises:
        InputError: it does not match [a-zA-Z0-9._-]{1,128}.
    """
    if not _TOKEN.fullmatch(value):
        raise InputError(f"Expected {field} to match [a-zA-Z0-9._-]{{1,128}}, got {value!r}.")
    return value


def mode_enum_name(mode: str) -> str:
    """Returns the enum's name of a mode as people write it, such as "soft-hierarchical".

    Raises:
        InputError: there is no such mode.
    """
    names = {mode_name(number): name for name, number in deployment_pb2.Mode.items()[1:]}
    if mode not in names:
        raise InputError(f"Expected mode to be one of {', '.join(names)}, got {mode!r}.")
    return names[mode]


def mode_name(number: int) -> str:
    """Returns a mode as people write it, such as "soft-hierarchical"."""
    return bare_name(deployment_pb2.Mode, number).lower().replace("_", "-")


def bare_name(enum: EnumWrapper, value: int) -> str:
    """Returns the name of an enum value without its type's prefix, such as "PUBLISHED".

    A value that a newer planner has added becomes "UNKNOWN_<number>".
    """
    prefix = enum.Name(0).removesuffix("UNSPECIFIED")
    try:
        return enum.Name(value).removeprefix(prefix)
    except ValueError:
        return f"UNKNOWN_{value}"
