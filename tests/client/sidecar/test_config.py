"""What an operator may set, and what is said where it breaks a rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from expertplane_client import FormatError, InputError
from expertplane_client.sidecar.config import config_from, load_config

from ..light import REPOSITORY


if TYPE_CHECKING:
    from pathlib import Path


TOML = """
planner = "planner:50051"
deployment = "prod/tiny"
participant_id = "node-0"
ranks = [0, 1]
cache = "/var/lib/expertplane"

[handoff]
kind = "socket"
path = "/run/engine.sock"
"""
YAML = """
planner: planner:50051
deployment: prod/tiny
participant_id: node-0
ranks: [0, 1]
cache: /var/lib/expertplane
handoff: {kind: socket, path: /run/engine.sock}
"""


def document(**changes: Any) -> dict[str, Any]:
    """Returns settings as parsed from a file; None leaves one out."""
    settings: dict[str, Any] = {
        "planner": "planner:50051",
        "deployment": "prod/tiny",
        "participant_id": "node-0",
        "ranks": [0, 1],
        "cache": "/var/lib/expertplane",
        "handoff": {"kind": "socket", "path": "/run/engine.sock"},
    }
    return {name: value for name, value in (settings | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("name", "content"), [("a.toml", TOML), ("a.yaml", YAML), ("a.yml", YAML)]
)
def test_a_file_of_either_kind_is_read(tmp_path: Path, name: str, content: str) -> None:
    """The same settings, whatever they are written in; the rest has defaults."""
    path = tmp_path / name
    path.write_text(content)

    assert load_config(path) == config_from(document())
    assert load_config(path).metrics == "127.0.0.1:9465"


def test_the_example_can_be_used() -> None:
    """The configuration that is shipped as an example is in order."""
    config = load_config(REPOSITORY / "deploy" / "sidecar" / "sidecar.toml")

    assert config.handoff.kind == "socket"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"cash": "x"}, "got cash"),
        ({"handoff": {"kind": "socket", "path": "/x", "pth": "/y"}}, "got handoff.pth"),
        ({"planner": None}, "Expected planner to be set"),
        ({"handoff": {"kind": "socket"}}, "Expected handoff.path to be set"),
        ({"handoff": "socket"}, "Expected handoff to be a table"),
        ({"handoff": {"kind": "pipe", "path": "/x"}}, "socket or directory, got 'pipe'"),
        ({"planner": "planner"}, "host:port"),
        ({"planner": 7}, "Expected planner to be a string, got 7"),
        ({"deployment": "tiny"}, "namespace/name"),
        ({"participant_id": "a b"}, "participant_id"),
        ({"ranks": [1, 0]}, "ascending"),
        ({"ranks": [True]}, "list of whole numbers"),
        ({"ranks": "0-7"}, "list of whole numbers"),
        ({"generation": True}, "whole number, got True"),
        ({"max_staged_bytes": -1}, "max_staged_bytes"),
        ({"engine_run_id": "a b"}, "engine_run_id"),
        ({"cache": ""}, "Expected cache to be a path"),
        ({"metrics": "9465"}, "Expected metrics to be HOST:PORT"),
        ({"health": "a:99999"}, "Expected health to be HOST:PORT"),
        (
            {"handoff": {"kind": "directory", "path": "/x", "poll_interval_s": 0}},
            "poll_interval_s in",
        ),
        (
            {"handoff": {"kind": "socket", "path": "/x", "max_message_bytes": 1}},
            "max_message_bytes in",
        ),
    ],
)
def test_a_setting_that_breaks_its_rule_is_named(changes: Any, complaint: str) -> None:
    """The message says what was expected, and then what was found."""
    with pytest.raises(InputError, match="^Expected") as caught:
        config_from(document(**changes))

    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.toml", "= 1"), ("a.yaml", "a: ["), ("a.yaml", "just words"), ("a.toml", None)],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, name: str, content: str | None) -> None:
    """A slip in the file, or in its name, is a sentence and no traceback."""
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(FormatError, match="^Expected"):
        load_config(tmp_path / name)
