"""What an operator may set, rule by rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from expertplane_server.config import ServerConfig, is_loopback, parse_address
from expertplane_server.core.errors import InvalidArgumentError


NAN = float("nan")


def test_defaults() -> None:
    """The defaults listen on loopback only and expose nothing."""
    config = ServerConfig()

    assert config.listen.startswith("127.0.0.1:")
    assert config.metrics.startswith("127.0.0.1:")
    assert not config.has_reflection
    assert not config.allows_insecure_listen


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("listen", {"listen": ""}),
        ("listen", {"listen": "127.0.0.1"}),
        ("listen", {"listen": ":50051"}),
        ("listen", {"listen": "127.0.0.1:"}),
        ("listen", {"listen": "127.0.0.1:port"}),
        ("listen", {"listen": "127.0.0.1:-1"}),
        ("listen", {"listen": "127.0.0.1:65536"}),
        ("listen", {"listen": "127.0.0.1:\u00b2"}),
        ("listen", {"listen": "127.0.0.1:\u0663"}),
        ("listen", {"listen": "0.0.0.0:1"}),
        ("listen", {"listen": "[::]:1"}),
        ("listen", {"listen": "10.1.2.3:1"}),
        ("listen", {"listen": "example.com:1"}),
        ("listen", {"listen": "unix:/tmp/socket"}),
        ("metrics", {"metrics": "9464"}),
        ("metrics", {"metrics": "127.0.0.1:99999"}),
        ("device", {"device": ""}),
        ("device", {"device": "cuda"}),
        ("device", {"device": "cuda:-1"}),
        ("device", {"device": "cpu\n"}),
        ("store", {"store": "planner.db"}),
        ("store", {"store": "sqlite:///"}),
        ("store", {"store": "postgres:///x"}),
        ("keep_plans", {"keep_plans": 1}),
        ("keep_plans", {"keep_plans": 100_001}),
        ("heartbeat_interval_s", {"heartbeat_interval_s": 0.0}),
        ("heartbeat_interval_s", {"heartbeat_interval_s": NAN}),
        ("report_interval_s", {"report_interval_s": -1.0}),
        ("report_interval_s", {"report_interval_s": 15.1}),
        ("grace_s", {"grace_s": 0.0}),
        ("grace_s", {"grace_s": 3601.0}),
        ("solve_timeout_s", {"solve_timeout_s": float("inf")}),
        ("drain_delay_s", {"drain_delay_s": -0.1}),
        ("drain_delay_s", {"drain_delay_s": 601.0}),
        ("drain_delay_s", {"drain_delay_s": NAN}),
    ],
)
def test_rule(field: str, changes: dict[str, Any]) -> None:
    """Every setting has its rule, checked when it is set."""
    with pytest.raises(InvalidArgumentError) as refusal:
        ServerConfig(**changes)

    assert refusal.value.field == field


@pytest.mark.parametrize(
    "changes",
    [
        {"listen": "localhost:0"},
        {"listen": "127.8.9.10:50051"},
        {"listen": "[::1]:50051"},
        {"listen": "0.0.0.0:50051", "allows_insecure_listen": True},
        {"metrics": ""},
        {"metrics": "0.0.0.0:9464"},
        {"device": "cpu"},
        {"device": "cuda:7"},
        {"report_interval_s": 15.0},
        {"keep_plans": 2},
    ],
)
def test_allowed(changes: dict[str, Any]) -> None:
    """Loopback by any name, and anything else by the operator's word; metrics anywhere."""
    ServerConfig(**changes)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///planner.db", "planner.db"),
        ("sqlite:////var/lib/planner.db", "/var/lib/planner.db"),
        ("sqlite:///with%20space.db", "with space.db"),
    ],
)
def test_store_path(url: str, path: str) -> None:
    """A store's URL names a file, relative or absolute."""
    assert ServerConfig(store=url).store_path == Path(path)


def test_default_store_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a URL the file lies in the user's state directory."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    assert ServerConfig().store_path.name == "planner.db"
    assert "expertplane" in str(ServerConfig().store_path)


@pytest.mark.parametrize(
    ("address", "parts"),
    [("a:1", ("a", 1)), ("[::1]:2", ("::1", 2)), ("127.0.0.1:65535", ("127.0.0.1", 65535))],
)
def test_address(address: str, parts: tuple[str, int]) -> None:
    """An address is a host and a port, also for IPv6."""
    assert parse_address(address, "listen") == parts


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "localhost.example.com", "127.0.0.1.x"])
def test_beyond_loopback(host: str) -> None:
    """Only what surely stays on this machine is loopback."""
    assert not is_loopback(host)
