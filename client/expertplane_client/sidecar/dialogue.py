"""What an engine says to its sidecar, checked at birth, and what it is told, as JSON documents."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from expertplane_client.errors import InputError
from expertplane_client.names import check_token

from .arrays import from_document, to_document


if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from expertplane_client.plan import Plan


_MAX_COUNT = 2**53  # beyond it JSON readers disagree


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """The ranks serve with a version."""

    version: int
    digest: str = ""
    """The plan's digest; empty where the version alone is meant."""
    step: int = 0
    """The engine step at which they switched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """The weights of a version are in spare buffers."""

    version: int
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A version is not prepared, or not switched to."""

    version: int
    message: str
    is_transient: bool
    order: str = ""
    """The order that is refused; empty for the latest about the version."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EngineHello:
    """Who the engine is, and what it serves with."""

    engine_run_id: str
    """Names its run; empty where the sidecar's configuration does."""
    initial_phy2log: NDArray[np.int32] | None = None
    """[num_layers, num_slots], its start placement; None for slot p holding expert p mod E."""
    applied: Applied | None = None
    """The plan that it serves with; None for the start placement."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Load:
    """Load samples; the fields are those of `Participant.report`."""

    counts: NDArray[Any]
    first_step: int
    steps_per_sample: int = 1
    kind: Literal["logical", "physical"] = "logical"
    scope: Literal["participant", "deployment"] = "participant"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EngineState:
    """All that an engine has to say about itself at a time."""

    hello: EngineHello
    staged: Staged | None = None
    refused: Refused | None = None


EngineMessage: TypeAlias = EngineHello | Staged | Applied | Refused | Load


def parse_line(line: bytes) -> EngineMessage:
    """Returns the message in a line of JSON.

    Raises:
        InputError: it is no message, or one of its fields breaks a rule.
    """
    document = _json(line)
    kind = document.pop("type", None)
    match kind:
        case "hello":
            return _hello(document)
        case "staged":
            return Staged(**_reference(document, "staged"))
        case "applied":
            return _applied(document, "applied")
        case "refused":
            return _refused(document, "refused")
        case "load":
            return parse_load(document)
    raise InputError(
        f"Expected type to be hello, staged, applied, refused or load, got {kind!r:.60}."
    )


def parse_state(content: bytes) -> EngineState:
    """Returns what an engine's state file says.

    Raises:
        InputError: it is no such file, or one of its fields breaks a rule.
    """
    document = _json(content)
    staged, refused = document.pop("staged", None), document.pop("refused", None)
    return EngineState(
        hello=_hello(document),
        staged=None if staged is None else Staged(**_reference(staged, "staged")),
        refused=None if refused is None else _refused(refused, "refused"),
    )


def parse_load(document: Any) -> Load:
    """Returns load samples.

    Raises:
        InputError: a field breaks a rule.
    """
    names = ("counts", "first_step", "steps_per_sample", "kind", "scope")
    fields = _fields(document, "load", names)
    kind, scope = fields.get("kind", "logical"), fields.get("scope", "participant")
    if kind not in ("logical", "physical"):
        raise InputError(f"Expected load.kind to be logical or physical, got {kind!r:.60}.")
    if scope not in ("participant", "deployment"):
        raise InputError(
            f"Expected load.scope to be participant or deployment, got {scope!r:.60}."
        )
    steps = fields.get("steps_per_sample", 1)
    if type(steps) is not int or not 1 <= steps < 2**32:
        raise InputError(f"Expected load.steps_per_sample in [1, 2^32), got {steps!r:.60}.")
    return Load(
        counts=from_document(fields.get("counts"), "load.counts"),
        first_step=_count(fields.get("first_step"), "load.first_step"),
        steps_per_sample=steps,
        kind=kind,
        scope=scope,
    )


def load_from(content: bytes) -> Load:
    """Returns the load samples in a file.

    Raises:
        InputError: it is no JSON object, or a field breaks a rule.
    """
    document = _json(content)
    document.pop("type", None)
    return parse_load(document)


def plan_document(plan: Plan) -> dict[str, Any]:
    """Returns what an engine is told of a plan, the map included."""
    return {
        "version": plan.version,
        "digest": plan.digest,
        "num_logical_experts": plan.num_logical_experts,
        "phy2log": to_document(plan.phy2log),
    }


def to_line(document: dict[str, Any]) -> bytes:
    """Returns a document as one line."""
    return json.dumps(document, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _json(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"Expected a JSON object, got: {error}.") from error
    if not isinstance(document, dict):
        raise InputError(f"Expected a JSON object, got {type(document).__name__}.")
    return document


def _hello(document: dict[str, Any]) -> EngineHello:
    names = ("engine_run_id", "initial_phy2log", "applied")
    fields = _fields(document, "hello", names)
    run_id, start, applied = (fields.get(name) for name in names)
    if run_id is None:
        run_id = ""
    elif not isinstance(run_id, str):
        raise InputError(f"Expected hello.engine_run_id to be a string, got {run_id!r:.60}.")
    else:
        check_token("hello.engine_run_id", run_id)
    phy2log = None if start is None else from_document(start, "hello.initial_phy2log")
    if phy2log is not None and (phy2log.ndim != 2 or phy2log.dtype != np.int32):
        raise InputError(
            "Expected hello.initial_phy2log of shape [layers, slots] and int32, "
            f"got {list(phy2log.shape)} x {phy2log.dtype.name}."
        )
    return EngineHello(
        engine_run_id=run_id,
        initial_phy2log=phy2log,
        applied=None if applied is None else _applied(applied, "hello.applied"),
    )


def _applied(document: Any, field: str) -> Applied:
    step = _fields(document, field, ("version", "digest", "step")).get("step", 0)
    reference = {name: value for name, value in document.items() if name != "step"}
    return Applied(**_reference(reference, field), step=_count(step, f"{field}.step"))


def _refused(document: Any, field: str) -> Refused:
    fields = _fields(document, field, ("version", "message", "transient", "order"))
    message, is_transient = fields.get("message", ""), fields.get("transient", True)
    order = fields.get("order", "")
    if not isinstance(message, str) or not isinstance(order, str):
        raise InputError(f"Expected {field}.message and {field}.order to be strings.")
    if not isinstance(is_transient, bool):
        raise InputError(
            f"Expected {field}.transient to be true or false, got {is_transient!r:.60}."
        )
    return Refused(
        version=_count(fields.get("version"), f"{field}.version"),
        message=message[:1000],
        is_transient=is_transient,
        order=order,
    )


def _reference(document: Any, field: str) -> dict[str, Any]:
    fields = _fields(document, field, ("version", "digest"))
    digest = fields.get("digest", "")
    if not isinstance(digest, str):
        raise InputError(f"Expected {field}.digest to be a string, got {digest!r:.60}.")
    return {"version": _count(fields.get("version"), f"{field}.version"), "digest": digest}


def _fields(document: Any, field: str, names: Collection[str]) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise InputError(f"Expected {field} to be a JSON object, got {document!r:.60}.")
    unknown = sorted(set(document) - set(names))
    if unknown:
        raise InputError(f"Expected {field} with {', '.join(names)}, got {unknown[0]!r:.60}.")
    return document


def _count(value: Any, field: str) -> int:
    if type(value) is not int or not 0 <= value < _MAX_COUNT:
        raise InputError(f"Expected {field} to be a whole number from 0 on, got {value!r:.60}.")
    return value
