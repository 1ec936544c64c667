"""What an operator sets: frozen, checked at birth, relations included."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from expertplane_server.core.errors import InvalidArgumentError
from expertplane_server.store.base import KEEP_PLANS


_DEVICE = re.compile(r"auto|cpu|cuda:\d{1,3}")
_STORE_PREFIX = "sqlite:///"
_MOST_PLANS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Everything that `expertplane serve` needs."""

    listen: str = "127.0.0.1:50051"
    """gRPC address, HOST:PORT; port 0 picks a free one."""
    metrics: str = "127.0.0.1:9464"
    """Address of /metrics, HOST:PORT; empty turns it off."""
    store: str = ""
    """sqlite:///path; empty for the file in the user's state directory."""
    keep_plans: int = KEEP_PLANS
    """Plans of each deployment that the store keeps: what one can look up and roll back to."""
    device: str = "auto"
    """Where the solver plans: auto, cpu or cuda:N."""
    has_reflection: bool = False
    """Lets tools such as grpcurl discover the services; off, as it shows the surface to anyone."""
    allows_insecure_listen: bool = False
    """Permits an address beyond loopback although nothing is encrypted or authenticated."""
    heartbeat_interval_s: float = 5.0
    """How often planner and participants exchange heartbeats; three missed ones mean lost."""
    report_interval_s: float = 1.0
    """Cadence of load reports suggested to participants."""
    grace_s: float = 10.0
    """How long a drain waits for streams to end before it ends them."""
    drain_delay_s: float = 0.0
    """Wait between readiness going down and the drain, for endpoints to be withdrawn."""
    solve_timeout_s: float = 60.0
    """A solve that takes longer is taken for lost."""

    def __post_init__(self) -> None:
        host, _ = parse_address(self.listen, "listen")
        if not self.allows_insecure_listen and not is_loopback(host):
            raise InvalidArgumentError(
                f"Expected a loopback address (or --insecure-listen-any), got {self.listen!r}: "
                "this release neither encrypts nor authenticates.",
                field="listen",
            )
        if self.metrics:
            parse_address(self.metrics, "metrics")
        if _DEVICE.fullmatch(self.device) is None:
            raise InvalidArgumentError(
                f"Expected auto, cpu or cuda:N, got {self.device!r}.", field="device"
            )
        if self.store:
            _store_path(self.store)
        if not 2 <= self.keep_plans <= _MOST_PLANS:
            raise InvalidArgumentError(
                f"Expected to keep 2 to {_MOST_PLANS} plans, got {self.keep_plans}.",
                field="keep_plans",
            )
        self._check_times()

    def _check_times(self) -> None:
        """Checks the times and their relations."""
        for name in ("heartbeat_interval_s", "report_interval_s", "grace_s", "solve_timeout_s"):
            value = getattr(self, name)
            if not 0 < value <= 3600:
                raise InvalidArgumentError(
                    f"Expected more than 0 and at most 3600 seconds, got {value}.", field=name
                )
        if not 0 <= self.drain_delay_s <= 600:
            raise InvalidArgumentError(
                f"Expected 0 to 600 seconds, got {self.drain_delay_s}.", field="drain_delay_s"
            )
        if self.report_interval_s > 3 * self.heartbeat_interval_s:
            raise InvalidArgumentError(
                "Expected report_interval_s within three heartbeat intervals, "
                f"got {self.report_interval_s} and {self.heartbeat_interval_s}.",
                field="report_interval_s",
            )

    @property
    def store_path(self) -> Path:
        """The store's file."""
        return _store_path(self.store) if self.store else default_store_path()


def _store_path(url: str) -> Path:
    """Returns the file that a store's URL names.

    Raises:
        InvalidArgumentError: the URL is none of ours.
    """
    path = url.removeprefix(_STORE_PREFIX)
    if path == url or not path:
        raise InvalidArgumentError(f"Expected sqlite:///path, got {url!r}.", field="store")
    return Path(unquote(path))


def default_store_path() -> Path:
    """Returns the store's file in the user's state directory."""
    from platformdirs import user_state_path

    return user_state_path("expertplane") / "planner.db"


def parse_address(address: str, at: str) -> tuple[str, int]:
    """Splits HOST:PORT, also [IPV6]:PORT.

    Raises:
        InvalidArgumentError: it is no address.
    """
    host, separator, port = address.rpartition(":")
    if not separator or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise InvalidArgumentError(f"Expected HOST:PORT, got {address!r}.", field=at)
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Tells whether only this machine can reach the host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
