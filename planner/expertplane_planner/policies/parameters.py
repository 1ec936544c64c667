"""Parameters of policies as text, the way they come from command lines, files and the wire."""

from __future__ import annotations

import dataclasses
import tomllib
from typing import TYPE_CHECKING, Any

from expertplane_planner.errors import InvalidInputError


if TYPE_CHECKING:
    from collections.abc import Mapping

    from .base import Policy


_MAX_CHARACTERS = 64  # of a value; the longest number is shorter


def with_parameters(policy: Policy, parameters: Mapping[str, str]) -> Policy:
    """Return the policy with some parameters changed.

    Args:
        policy: A dataclass with a field `params`, another dataclass, as all built-in ones are.
        parameters: Values by name, written as in TOML.

    Raises:
        InvalidInputError: There is no such parameter, the text is no value, or the policy does not
            take it; the field is `policy.params.<name>`.
    """
    known = _names_of(policy)
    for name in parameters:
        if name not in known:
            raise InvalidInputError(
                f"policy.params.{name[:_MAX_CHARACTERS]}",
                f"Expected a parameter of policy '{policy.name}', one of "
                f"{', '.join(known) or 'none'}, got '{name[:_MAX_CHARACTERS]}'.",
            )
    values = {name: _value(name, text) for name, text in parameters.items()}
    changed: Any = policy
    try:
        params = dataclasses.replace(changed.params, **values)
        return dataclasses.replace(changed, params=params)  # type: ignore[no-any-return]
    except InvalidInputError:
        raise
    except Exception as error:  # other people's code may check in other ways
        name = next(iter(values)) if len(values) == 1 else "..."
        raise InvalidInputError(
            f"policy.params.{name}",
            f"Expected parameters that policy '{policy.name}' takes, "
            f"got {type(error).__name__}: {error}",
        ) from error


def _names_of(policy: Policy) -> list[str]:
    is_open = dataclasses.is_dataclass(policy) and any(
        field.name == "params" and field.init for field in dataclasses.fields(policy)
    )
    if not is_open or not dataclasses.is_dataclass(policy.params):
        return []
    return [field.name for field in dataclasses.fields(policy.params)]


def _value(name: str, text: str) -> Any:
    if not isinstance(text, str):
        raise InvalidInputError(
            f"policy.params.{name}", f"Expected {name} as text, written as in TOML, got {text!r}."
        )
    try:
        if len(text) > _MAX_CHARACTERS or "\n" in text:
            raise ValueError("too long, or more than one line")
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError as error:  # TOMLDecodeError is one
        raise InvalidInputError(
            f"policy.params.{name}",
            f"Expected {name} to be written as in TOML, got {text[:_MAX_CHARACTERS]!r}.",
        ) from error
