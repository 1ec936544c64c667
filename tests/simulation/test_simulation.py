"""Worlds in which everything goes wrong that may, run by the thousand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .runs import run


ROOT = Path(__file__).parents[2]
NUM_CHUNKS = 20
SEEDS_PER_CHUNK = 100
TAIL = 60


@pytest.mark.parametrize("chunk", range(NUM_CHUNKS))
def test_no_world_breaks_an_invariant(chunk: int) -> None:
    """I1 to I9 hold in every world, and every world comes to rest and works on."""
    for seed in range(chunk * SEEDS_PER_CHUNK, (chunk + 1) * SEEDS_PER_CHUNK):
        story = run(seed)
        if story.error is not None:
            pytest.fail(
                f"{story.told(TAIL)}\nreplay: python -m tests.simulation --seed {seed} --trace",
                pytrace=False,
            )


def test_a_world_is_its_seed() -> None:
    """One seed makes one trace, to the byte; another makes another."""
    first, again, other = run(11), run(11), run(12)

    assert first.world.loop.lines() == again.world.loop.lines()
    assert first.world.loop.fingerprint() != other.world.loop.fingerprint()


def test_a_world_is_its_seed_in_every_process() -> None:
    """The order of hashes, which differs from process to process, changes nothing."""
    fingerprints = {_fingerprint(seed=7, hash_seed=hash_seed) for hash_seed in ("1", "2")}

    assert fingerprints == {run(7).world.loop.fingerprint()}


def _fingerprint(seed: int, hash_seed: str) -> str:
    environment = {
        **os.environ,
        "PYTHONHASHSEED": hash_seed,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--seed", str(seed)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.splitlines()[-1]


def test_the_worlds_see_all_there_is() -> None:
    """Invariants that hold because nothing happens prove nothing: everything happens often."""
    seen = "\n".join(line for seed in range(60) for line in run(seed).world.loop.lines())

    for what in (
        "StorePlan staging",
        "StorePlan committed",
        "CommitPlan",
        "AbortPlan",
        "StoreParked",
        "StoreSuperseded",
        "StoreApplied",
        "StoreSpec",
        "StorePause",
        "ReadBack",
        "RaiseCounters",
        "StoreFailed unknown",
        "Nack transient",
        "Nack permanent",
        "take_this_plan",
        "up_to_date",
        "again",
        "PUBLISHED_BY_OPERATOR",
        "ROLLED_BACK v",
        "ROLLED_BACK_REGRESSION",
        "FAILED_ROLLOUT",
        "SKIPPED_BUFFERS_TOO_SMALL",
        "SKIPPED_MEMBERS_MISSING",
        "ConflictError(STALE_EPOCH)",
        "FailedPreconditionError(SILENT)",
        "AlreadyExistsError(RANKS_TAKEN)",
        "serves with",
        "goes on",
        "is at rest",
    ):
        assert what in seen, what
