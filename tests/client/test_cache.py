"""The last known good plan on disk."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expertplane_client import CacheEntry, CacheError, InputError, PlanCache

from . import builders


def entry(version: int = 3) -> CacheEntry:
    """Returns what a participant saves after it has switched."""
    return CacheEntry(plan=builders.plan(version), highest_version=5, highest_epoch=2)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    """A plan comes back whole, with the counters that must not be forgotten."""
    PlanCache(tmp_path).save(builders.DEPLOYMENT, "node-0", entry())
    found = PlanCache(tmp_path).load(builders.DEPLOYMENT, "node-0")

    assert found is not None
    assert found.plan is not None
    assert (found.highest_version, found.highest_epoch) == (5, 2)
    expected = builders.plan(3)
    np.testing.assert_array_equal(expected.phy2log, found.plan.phy2log)
    assert expected.created_at == found.plan.created_at
    assert (expected.digest, expected.version, expected.per_layer, expected.reason) == (
        found.plan.digest,
        found.plan.version,
        found.plan.per_layer,
        found.plan.reason,
    )


def test_a_folder_may_be_given_as_text(tmp_path: Path) -> None:
    """A path is a path, whatever its type."""
    PlanCache(str(tmp_path)).save(builders.DEPLOYMENT, "node-0", entry())

    assert PlanCache(tmp_path).load(builders.DEPLOYMENT, "node-0") is not None


def test_counters_are_kept_without_a_plan(tmp_path: Path) -> None:
    """A participant that never switched still remembers what it has seen."""
    cache = PlanCache(tmp_path)
    cache.save(
        builders.DEPLOYMENT, "node-0", CacheEntry(plan=None, highest_version=5, highest_epoch=2)
    )
    found = cache.load(builders.DEPLOYMENT, "node-0")

    assert found is not None
    assert (found.plan, found.highest_version, found.highest_epoch) == (None, 5, 2)


def test_nothing_saved_is_nothing_loaded(tmp_path: Path) -> None:
    """Participants do not see each other's plans."""
    cache = PlanCache(tmp_path)
    cache.save(builders.DEPLOYMENT, "node-0", entry())

    assert cache.load(builders.DEPLOYMENT, "node-1") is None
    assert cache.load("prod/other", "node-0") is None


def test_the_file_can_be_read_without_protobuf(tmp_path: Path) -> None:
    """The map is base64 of int32, little-endian, next to its digest and version."""
    cache = PlanCache(tmp_path)
    cache.save(builders.DEPLOYMENT, "node-0", entry())
    document = json.loads(cache.path(builders.DEPLOYMENT, "node-0").read_text())

    elements = np.frombuffer(base64.b64decode(document["plan"]["phy2log"]), "<i4")
    np.testing.assert_array_equal(builders.phy2log().ravel(), elements)
    assert (
        document["plan"]["version"],
        document["plan"]["digest"],
    ) == (3, builders.PINNED_DIGEST)


def _change(**changes: Any) -> Any:
    def damage(content: bytes) -> bytes:
        document = json.loads(content)
        document["plan"] |= changes
        return json.dumps(document).encode()

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"\xff" + content,
        lambda content: b"[]",
        lambda content: b"{}",
        lambda content: b"null",
        lambda content: content.replace(b"plan-cache.v1", b"plan-cache.v9"),
        lambda content: content.replace(b'"participant_id": "node-0"', b'"participant_id": "x"'),
        _change(phy2log=base64.b64encode(b"\0" * 32).decode()),
        _change(phy2log="!"),
        _change(phy2log=None),
        _change(shape=[4, 2]),
        _change(shape=[2]),
        _change(version=-1),
        _change(version="3"),
        _change(created_at="yesterday"),
        _change(per_layer=3),
        _change(deployment="prod/other"),
    ],
)
def test_a_damaged_file_is_set_aside(tmp_path: Path, damage: Any) -> None:
    """Damage is reported once and kept for a look; after that there is no plan, and no crash."""
    cache = PlanCache(tmp_path)
    cache.save(builders.DEPLOYMENT, "node-0", entry())
    path = cache.path(builders.DEPLOYMENT, "node-0")
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)

    with pytest.raises(CacheError, match=r"\.damaged"):
        cache.load(builders.DEPLOYMENT, "node-0")

    assert cache.load(builders.DEPLOYMENT, "node-0") is None
    assert damaged == path.with_name("node-0.json.damaged").read_bytes()


def test_a_crash_before_the_rename_keeps_the_old_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies between writing and renaming has lost nothing, and blocks nothing."""

    class Crash(BaseException):
        pass

    def crash(self: Path, target: Path) -> Path:
        raise Crash

    cache = PlanCache(tmp_path)
    cache.save(builders.DEPLOYMENT, "node-0", entry(3))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", crash)
        with pytest.raises(Crash):
            cache.save(builders.DEPLOYMENT, "node-0", entry(4))

    found = cache.load(builders.DEPLOYMENT, "node-0")
    assert found is not None
    assert found.plan is not None
    assert found.plan.version == 3
    cache.save(builders.DEPLOYMENT, "node-0", entry(5))
    assert [file.name for file in (tmp_path / "prod@tiny").iterdir()] == ["node-0.json"]


def test_a_folder_that_cannot_be_written_is_an_error_of_the_cache(tmp_path: Path) -> None:
    """Whoever saves hears of a full or closed disk in the client's own words."""
    (tmp_path / "file").touch()

    with pytest.raises(CacheError, match="Expected to write"):
        PlanCache(tmp_path / "file").save(builders.DEPLOYMENT, "node-0", entry())


@pytest.mark.parametrize(
    ("deployment", "participant_id"),
    [("prod", "a"), ("../..", "a/b"), ("a/b", ""), ("a/b/c", "d")],
)
def test_a_name_out_of_its_pattern_reaches_no_file(
    tmp_path: Path, deployment: str, participant_id: str
) -> None:
    """Names are checked before they become a path."""
    with pytest.raises(InputError, match="Expected"):
        PlanCache(tmp_path).path(deployment, participant_id)


def test_dots_do_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    """Even names of dots, which the pattern allows, stay inside."""
    path = PlanCache(tmp_path).path("../..", "..")

    assert tmp_path.resolve() in path.resolve().parents
