"""Deployment specs as people write them: mappings, lists, numbers and short names, both ways.

Keys are the names of the wire's fields, enums are the short lower-case names of their values, and
lists of layers or ranks may be ranges such as "3-60". Does no I/O.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from google.protobuf.descriptor import FieldDescriptor

from expertplane.v1 import deployment_pb2 as pb

from .errors import FormatError, InputError
from .formats import parse_layer_ids
from .formats.layer_ids import format_layer_ids
from .names import check_deployment


if TYPE_CHECKING:
    from google.protobuf.message import Message

_Field: TypeAlias = Any
_Enum: TypeAlias = Any
"""Descriptors, which come from one of two implementations with types of their own."""

_HIGHEST = {FieldDescriptor.CPPTYPE_UINT32: 2**32 - 1, FieldDescriptor.CPPTYPE_UINT64: 2**64 - 1}
_HIGHEST_IN_RANGE = 999_999_999  # what `parse_layer_ids` reads

_DEFAULTS = pb.DeploymentSpec(
    num_expert_groups=1,
    policy=pb.PolicySpec(mode=pb.MODE_AUTO),
    forecast=pb.ForecastParameters(recent_windows=1, half_life_windows=100.0),
    trigger=pb.TriggerParameters(
        window_samples=16,
        max_window_s=600.0,
        min_samples=1,
        cooldown_s=0.0,
        min_gain=0.01,
        horizon_s=300.0,
        moe_time_fraction=0.5,
        stall_fraction=0.1,
        safety=2.0,
    ),
    samples=pb.SampleParameters(deadline_s=10.0, min_coverage=0.75),
    rollout=pb.RolloutParameters(
        mode=pb.ROLLOUT_MODE_ADVISORY,
        stage_deadline_s=600.0,
        regression_tolerance=0.02,
        hold_down_s=600.0,
    ),
    migration=pb.MigrationParameters(intra_node_bytes_per_s=450e9, inter_node_bytes_per_s=50e9),
)
"""What the contract says of fields that are absent. The policy's name is not in it."""


def with_defaults(spec: pb.DeploymentSpec) -> pb.DeploymentSpec:
    """Returns a spec with the defaults of the contract spelt out, so that specs compare."""
    full = pb.DeploymentSpec()
    full.CopyFrom(_DEFAULTS)
    full.MergeFrom(spec)
    return full


def deployments_of(document: Any, *, source: str) -> list[tuple[str, pb.DeploymentSpec]]:
    """Returns the names and specs that a document describes, one or those of `deployments`.

    Args:
        document: As TOML and YAML are read: mappings, lists, numbers, text and booleans.
        source: Where it comes from, for messages.

    Raises:
        FormatError: a key is unknown or missing, a value is not what its key takes, or a name
            comes twice; the message names the path of the key.
    """
    if not isinstance(document, Mapping):
        raise FormatError(f"Expected {source} to hold names and values, got {_kind(document)}.")
    if "deployments" not in document:
        return [_deployment_of(document, "", source)]
    if len(document) > 1:
        other = next(key for key in document if key != "deployments")
        raise FormatError(f"Expected only 'deployments' at the top of {source}, got {other!r}.")
    parts = document["deployments"]
    if not isinstance(parts, list) or not parts:
        raise FormatError(f"Expected deployments in {source} to be a list, got {_kind(parts)}.")
    found = [
        _deployment_of(part, f"deployments[{number}]", source) for number, part in enumerate(parts)
    ]
    names = [name for name, _ in found]
    for name in names:
        if names.count(name) > 1:
            raise FormatError(f"Expected {name} once in {source}, got it {names.count(name)}x.")
    return found


def document_of(spec: pb.DeploymentSpec) -> dict[str, Any]:
    """Returns a spec as people write it: what is set, by key; `deployments_of` reads it back."""
    return _mapping_of(spec)


def changed_fields(
    old: pb.DeploymentSpec, new: pb.DeploymentSpec
) -> dict[str, tuple[Any | None, Any | None]]:
    """Returns what differs between two specs: old and new value by path, None for absent ones.

    Defaults count as if they were spelt out.
    """
    before, after = (dict(_leaves(_mapping_of(with_defaults(spec)), "")) for spec in (old, new))
    return {
        path: (before.get(path), after.get(path))
        for path in dict.fromkeys((*before, *after))
        if before.get(path) != after.get(path)
    }


def _deployment_of(document: Any, at: str, source: str) -> tuple[str, pb.DeploymentSpec]:
    if not isinstance(document, Mapping):
        raise FormatError(
            f"Expected {at} in {source} to hold names and values, got {_kind(document)}."
        )
    name = document.get("name")
    if not isinstance(name, str):
        raise FormatError(
            f"Expected {_join(at, 'name')} in {source}, such as 'prod/deepseek-v3', "
            f"got {'none' if name is None else _kind(name)}."
        )
    try:
        check_deployment(name)
    except InputError as error:
        raise FormatError(f"{_join(at, 'name')} in {source}: {error}") from error
    spec = pb.DeploymentSpec()
    fields = {key: value for key, value in document.items() if key != "name"}
    _fill(spec, fields, at, source)
    return name, spec


def _fill(message: Message, document: Mapping[Any, Any], at: str, source: str) -> None:
    known = message.DESCRIPTOR.fields_by_name
    for key, value in document.items():
        path = _join(at, str(key))
        field = known.get(key)
        if field is None:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {near[0]}" if near else f": it has {', '.join(known)}"
            raise FormatError(f"Expected a key that there is, got {path} in {source}{hint}.")
        try:
            _set(message, field, value, path, source)
        except _UnfitError as error:
            raise FormatError(
                f"Expected {path} in {source} to be {error.expectation}, got {_show(value)}."
            ) from error


class _UnfitError(Exception):
    """A value is not what its field takes."""

    def __init__(self, expectation: str) -> None:
        super().__init__(expectation)
        self.expectation = expectation


def _set(message: Message, field: _Field, value: Any, path: str, source: str) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        getattr(message, field.name).update(_texts(value))
    elif field.message_type is not None:
        if not isinstance(value, Mapping):
            raise _UnfitError("a table of names and values")
        part = getattr(message, field.name)
        part.SetInParent()
        _fill(part, value, path, source)
    elif _is_list(getattr(message, field.name)):
        getattr(message, field.name).extend(_numbers(field, value))
    else:
        setattr(message, field.name, _scalar(field, value))


def _texts(value: Any) -> dict[str, str]:
    """Returns the values of a map as the wire has them: text, written as in TOML."""
    if not isinstance(value, Mapping):
        raise _UnfitError("a table of names and values")
    texts = {}
    for name, each in value.items():
        if isinstance(each, bool):
            texts[str(name)] = str(each).lower()
        elif isinstance(each, int | float | str):
            texts[str(name)] = str(each)
        else:
            raise _UnfitError("a table of names and plain values")
    return texts


def _numbers(field: _Field, value: Any) -> Sequence[Any]:
    is_whole = field.cpp_type in _HIGHEST
    if is_whole and isinstance(value, str):
        try:
            return parse_layer_ids(value)
        except FormatError as error:
            raise _UnfitError("ascending numbers such as '3-60,62', or a list of them") from error
    if not isinstance(value, list):
        raise _UnfitError("a list, or a range such as '3-60'" if is_whole else "a list of numbers")
    return [_scalar(field, each) for each in value]


def _scalar(field: _Field, value: Any) -> Any:
    if field.enum_type is not None:
        return _enum_number(field.enum_type, value)
    if field.cpp_type in _HIGHEST:
        highest = _HIGHEST[field.cpp_type]
        if type(value) is not int or not 0 <= value <= highest:
            raise _UnfitError(f"a whole number from 0 to {highest}")
    elif field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        if type(value) not in (int, float) or not math.isfinite(value):
            raise _UnfitError("a number")
    elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if type(value) is not bool:
            raise _UnfitError("true or false")
    elif not isinstance(value, str):
        raise _UnfitError("text")
    return value


def _enum_number(enum: _Enum, value: Any) -> int:
    numbers: dict[str, int] = {
        _short_name(enum, one.number): one.number for one in enum.values[1:]
    }
    # The wire's own spelling has underscores.
    number = numbers.get(value.replace("_", "-")) if isinstance(value, str) else None
    if number is None:
        raise _UnfitError(f"one of {', '.join(numbers)}")
    return number


def _short_name(enum: _Enum, number: int) -> str:
    names: dict[int, str] = {known.number: known.name for known in enum.values}
    if number not in names:  # of a newer planner
        return f"unknown-{number}"
    prefix = names[0].removesuffix("UNSPECIFIED")
    return names[number].removeprefix(prefix).lower().replace("_", "-")


def _mapping_of(message: Message) -> dict[str, Any]:
    return {field.name: _plain(field, value) for field, value in message.ListFields()}


def _plain(field: _Field, value: Any) -> Any:
    if field.message_type is not None:
        is_map = field.message_type.GetOptions().map_entry
        return dict(sorted(value.items())) if is_map else _mapping_of(value)
    if field.enum_type is not None:
        return _short_name(field.enum_type, value)
    if not _is_list(value):
        return value
    numbers = list(value)
    is_ascending = all(a < b for a, b in zip(numbers, numbers[1:], strict=False))
    if field.cpp_type not in _HIGHEST or not is_ascending or numbers[-1] > _HIGHEST_IN_RANGE:
        return numbers
    return format_layer_ids(numbers)


def _is_list(value: Any) -> bool:
    # Releases of protobuf differ in how a descriptor says it.
    return hasattr(value, "extend")


def _leaves(document: Mapping[str, Any], at: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in document.items():
        path = _join(at, key)
        found += _leaves(value, path) if isinstance(value, Mapping) else [(path, value)]
    return found


def _join(at: str, key: str) -> str:
    return f"{at}.{key}" if at else key


def _kind(value: Any) -> str:
    return type(value).__name__


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
