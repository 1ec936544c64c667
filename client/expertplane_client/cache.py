"""The last known good plan on disk, so that a restarting engine can serve without a planner."""

from __future__ import annotations

import base64
import datetime
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .atomic import write_atomically
from .errors import CacheError
from .names import check_deployment, check_token
from .plan import Plan


if TYPE_CHECKING:
    import os


_FORMAT = "expertplane.plan-cache.v1"
# The map and the time are written in a way of their own; everything else is plain JSON.
_PLAIN_FIELDS = tuple(
    field.name for field in fields(Plan) if field.name not in ("phy2log", "created_at")
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CacheEntry:
    """What a participant must not forget over a restart."""

    plan: Plan | None
    """The plan that its ranks switched to last; None when they never did."""

    highest_version: int
    """The highest plan version ever seen."""

    highest_epoch: int
    """The highest planner's term ever seen."""


class PlanCache:
    """A folder with one JSON file for each participant.

    Args:
        directory: Where the files go; made when it is missing. Must outlive the engine's restart.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory = Path(directory)

    def path(self, deployment: str, participant_id: str) -> Path:
        """Returns the file of a participant.

        Raises:
            InputError: a name is out of its pattern.
        """
        # "@" is in neither pattern, so that no name can lead out of the folder or meet another.
        folder = check_deployment(deployment).replace("/", "@")
        name = check_token("participant_id", participant_id)
        return self._directory / folder / f"{name}.json"

    def load(self, deployment: str, participant_id: str) -> CacheEntry | None:
        """Returns what was saved last, or None when nothing was.

        A damaged file is set aside with ".damaged" behind its name, so that the next call finds
        none and its content can still be looked at.

        Raises:
            CacheError: the file is damaged or cannot be read.
            InputError: a name is out of its pattern.
        """
        path = self.path(deployment, participant_id)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CacheError(f"Expected to read {path}, got: {error}") from error
        try:
            return _entry(json.loads(content), deployment, participant_id)
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            aside = _set_aside(path)
            raise CacheError(
                f"Expected {path} to hold a plan, got: {error}. It now lies at {aside}."
            ) from error

    def save(self, deployment: str, participant_id: str, entry: CacheEntry) -> None:
        """Replaces what was saved; returns when it is on disk.

        Raises:
            CacheError: it cannot be written; what was saved before is still there.
            InputError: a name is out of its pattern.
        """
        path = self.path(deployment, participant_id)
        document = {
            "format": _FORMAT,
            "deployment": deployment,
            "participant_id": participant_id,
            "highest_version": entry.highest_version,
            "highest_epoch": entry.highest_epoch,
            "plan": None if entry.plan is None else _document(entry.plan),
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(document, indent=1).encode(), is_durable=True)
        except OSError as error:
            raise CacheError(f"Expected to write {path}, got: {error}") from error


def _document(plan: Plan) -> dict[str, Any]:
    document = {name: getattr(plan, name) for name in _PLAIN_FIELDS}
    document["parameters"] = dict(plan.parameters)
    document["created_at"] = plan.created_at and plan.created_at.isoformat()
    document["shape"] = plan.phy2log.shape
    document["phy2log"] = base64.b64encode(plan.phy2log.astype("<i4").tobytes()).decode()
    return document


def _entry(document: Any, deployment: str, participant_id: str) -> CacheEntry:
    expected = [_FORMAT, deployment, participant_id]
    found = [document["format"], document["deployment"], document["participant_id"]]
    if found != expected:
        raise ValueError(f"expected {expected}, got {found}")
    plan = document["plan"]
    return CacheEntry(
        plan=None if plan is None else _plan(plan, deployment),
        highest_version=_count(document["highest_version"]),
        highest_epoch=_count(document["highest_epoch"]),
    )


def _plan(document: dict[str, Any], deployment: str) -> Plan:
    num_layers, num_slots = map(_count, document["shape"])
    elements = np.frombuffer(base64.b64decode(document["phy2log"], validate=True), dtype="<i4")
    created_at = document["created_at"]
    plain = {name: document[name] for name in _PLAIN_FIELDS}
    for name in ("version", "epoch", "generation", "num_logical_experts"):
        _count(plain[name])
    if plain["deployment"] != deployment:
        raise ValueError(f"expected a plan for {deployment}, got one for {plain['deployment']}")
    return Plan(
        phy2log=elements.reshape(num_layers, num_slots),
        created_at=created_at and datetime.datetime.fromisoformat(created_at),
        **(plain | {"per_layer": tuple(plain["per_layer"])}),
    )


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**64:
        raise ValueError(f"expected a count, got {value!r}")
    return value


def _set_aside(path: Path) -> Path:
    aside = path.with_name(f"{path.name}.damaged")
    try:
        path.replace(aside)
    except OSError as error:
        raise CacheError(f"Expected to set {path} aside, got: {error}") from error
    return aside
