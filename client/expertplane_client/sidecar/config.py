"""What an operator sets: frozen, checked at birth, read from TOML or YAML."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expertplane_client.channel import check_address
from expertplane_client.errors import FormatError, InputError
from expertplane_client.identity import Identity
from expertplane_client.names import check_token
from expertplane_client.settings_file import read_settings


if TYPE_CHECKING:
    from collections.abc import Mapping


_KINDS = ("socket", "directory")


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoffConfig:
    """How sidecar and engine reach each other.

    Raises:
        InputError: a setting breaks its rule.
    """

    kind: str
    """ "socket" or "directory"."""
    path: Path
    """The socket's file, or the directory."""
    poll_interval_s: float = 0.2
    """Seconds between two looks into the directory."""
    max_message_bytes: int = 16 * 1024 * 1024
    """The longest line, or the largest file, that an engine may send."""

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise InputError(
                f"Expected handoff.kind to be socket or directory, got {self.kind!r}."
            )
        if not 0.01 <= self.poll_interval_s <= 60:
            raise InputError(
                f"Expected handoff.poll_interval_s in [0.01, 60], got {self.poll_interval_s}."
            )
        if not 1024 <= self.max_message_bytes <= 2**30:
            raise InputError(
                "Expected handoff.max_message_bytes in [1024, 2^30], "
                f"got {self.max_message_bytes}."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarConfig:
    """Everything that `expertplane sidecar` needs.

    Raises:
        InputError: a setting breaks its rule.
    """

    planner: str
    """The planner, HOST:PORT or a gRPC target."""
    deployment: str
    """ "namespace/name"."""
    participant_id: str
    """Names this participant within the deployment; the same after a restart."""
    ranks: tuple[int, ...]
    """The ranks of the engine, ascending."""
    cache: Path
    """The folder of the last known good plan; must outlive restarts."""
    handoff: HandoffConfig
    """How the engine is reached."""
    engine_run_id: str = ""
    """Names the run of an engine that does not say so itself; "" asks it to."""
    generation: int = 0
    """Topology generation that the engine is started with; 0 accepts any."""
    max_staged_bytes: int = 0
    """Size of the spare weight buffers of each rank; 0 for no limit."""
    metrics: str = "127.0.0.1:9465"
    """Address of /metrics, HOST:PORT; port 0 picks a free one, "" turns it off."""
    health: str = "127.0.0.1:50052"
    """Address of grpc.health.v1, HOST:PORT; port 0 picks a free one, "" turns it off."""

    def __post_init__(self) -> None:
        check_address(self.planner)
        if self.engine_run_id:
            check_token("engine_run_id", self.engine_run_id)
        # The rules of the names and the ranks are those of every participant.
        Identity(
            deployment=self.deployment,
            participant_id=self.participant_id,
            ranks=self.ranks,
            incarnation="any",
            engine_run_id=self.engine_run_id or "any",
            generation=self.generation,
            max_staged_bytes=self.max_staged_bytes,
        )
        for name in ("metrics", "health"):
            if getattr(self, name):
                parse_address(getattr(self, name), name)


def load_config(path: Path) -> SidecarConfig:
    """Returns the configuration in a file: TOML, or YAML where its name ends so.

    Raises:
        FormatError: the file cannot be read, or is no document of its kind.
        InputError: a setting is missing, unknown, or breaks its rule.
    """
    document = read_settings(path)
    if not isinstance(document, dict):
        raise FormatError(f"Expected settings in {path}, got {type(document).__name__}.")
    return config_from(document)


def config_from(document: Mapping[str, Any]) -> SidecarConfig:
    """Returns the configuration in a parsed document.

    Raises:
        InputError: a setting is missing, unknown, or breaks its rule.
    """
    settings = _settings(SidecarConfig, document, "")
    handoff = settings["handoff"]
    if not isinstance(handoff, dict):
        raise InputError(f"Expected handoff to be a table, got {handoff!r}.")
    ranks = settings["ranks"]
    if not isinstance(ranks, list) or not all(type(rank) is int for rank in ranks):
        raise InputError(f"Expected ranks to be a list of whole numbers, got {ranks!r}.")
    nested = _settings(HandoffConfig, handoff, "handoff.")
    return SidecarConfig(**settings | {"ranks": tuple(ranks), "handoff": HandoffConfig(**nested)})


def parse_address(address: str, at: str) -> tuple[str, int]:
    """Splits HOST:PORT, also [IPV6]:PORT.

    Raises:
        InputError: it is no address.
    """
    host, separator, port = address.rpartition(":")
    if not separator or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise InputError(f"Expected {at} to be HOST:PORT, got {address!r}.")
    return host.strip("[]"), int(port)


def _settings(kind: type, document: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    known = {field.name: field for field in fields(kind)}
    unknown = sorted(str(name) for name in set(document) - set(known))
    if unknown:
        names = ", ".join(f"{prefix}{name}" for name in known)
        raise InputError(f"Expected settings among {names}, got {prefix}{unknown[0]!s}.")
    settings = {}
    for name, field in known.items():
        if name in document:
            settings[name] = _value(document[name], str(field.type), f"{prefix}{name}")
        elif field.default is field.default_factory:  # both are MISSING: nothing to fall back to
            raise InputError(f"Expected {prefix}{name} to be set, got nothing.")
    return settings


def _value(value: Any, kind: str, name: str) -> Any:
    if kind == "str" and not isinstance(value, str):
        raise InputError(f"Expected {name} to be a string, got {value!r}.")
    if kind == "int" and type(value) is not int:
        raise InputError(f"Expected {name} to be a whole number, got {value!r}.")
    if kind == "float":
        if type(value) not in (int, float):
            raise InputError(f"Expected {name} to be a number, got {value!r}.")
        return float(value)
    if kind == "Path":
        if not isinstance(value, str) or not value:
            raise InputError(f"Expected {name} to be a path, got {value!r}.")
        return Path(value)
    return value
