"""The commands of the README against a real planner."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ..support.fixtures import fixtures_dir
from ..support.planner_process import run_program, running_planner


if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Simulated:
    """A planner that a simulation has run against, and what it printed."""

    address: str
    windows: list[dict[str, Any]]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulated]:
    """Four simulated nodes have served four windows of synthetic load."""
    folder = tmp_path_factory.mktemp("simulated")
    with running_planner(folder) as planner:
        done = run_program(
            "simulate",
            f"--address={planner.address}",
            "--participants=4",
            "--ranks=32",
            "--slots=288",
            "--load=synthetic",
            "--windows=4",
            "--json",
        )
        assert done.returncode == 0, done.stderr
        yield Simulated(planner.address, json.loads(done.stdout)["windows"])


def test_simulate_shows_that_a_plan_improves_the_balance(simulated: Simulated) -> None:
    """The first window has no plan and is as good as without; the ones after it are better."""
    windows = simulated.windows

    assert len(windows) == 4
    assert windows[0]["plan_version"] == 1
    assert windows[0]["measured"] == windows[0]["without"]
    assert all(window["measured"] > window["without"] + 0.2 for window in windows[1:])


def test_simulated_nodes_switch_together(simulated: Simulated) -> None:
    """With --rollout coordinated every plan is staged by all, committed, and applied by all."""
    name = "test/together"
    done = run_program(
        "simulate",
        f"--address={simulated.address}",
        f"--deployment={name}",
        "--rollout=coordinated",
        "--windows=4",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    published = [window["plan_version"] for window in json.loads(done.stdout)["windows"]]
    done = run_program("plans", name, f"--address={simulated.address}", "--json")
    states = {plan["version"]: plan["state"] for plan in json.loads(done.stdout)["plans"]}

    assert published[0] == 1
    versions = [version for version in published if version]
    assert versions == sorted(set(versions)) == sorted(states)
    assert states.pop(versions[-1]) == "APPLIED"
    assert set(states.values()) <= {"SUPERSEDED"}


def test_status_prints_the_promised_keys(simulated: Simulated) -> None:
    """`status --json` has exactly the documented keys, counts as numbers, the reason bare."""
    done = run_program("status", f"--address={simulated.address}", "--json")
    deployment = json.loads(done.stdout)["deployments"][0]

    assert set(deployment) == {
        "name",
        "head",
        "committed",
        "epoch",
        "participants",
        "last_decision",
        "staging",
        "applied_min",
        "applied_max",
        "mode",
    }
    assert deployment["name"] == "default/simulated"
    assert deployment["head"] == deployment["committed"] >= 1
    assert deployment["participants"] == 0
    assert (deployment["mode"], deployment["staging"]) == ("advisory", 0)
    assert deployment["last_decision"] in {"PUBLISHED", "SKIPPED_GAIN_TOO_SMALL"}


@pytest.mark.parametrize("command", ["status", "plans", "explain", "show"])
def test_commands_print_for_people(simulated: Simulated, command: str) -> None:
    """Without --json every command ends well and names what it is about."""
    arguments = [] if command == "status" else ["default/simulated"]
    done = run_program(command, *arguments, f"--address={simulated.address}")

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_simulate_takes_a_recording(tmp_path: Path, simulated: Simulated) -> None:
    """Recorded DeepSeek-V3 load streams in, dense layers included, and gains from a plan."""
    recording = fixtures_dir() / "data" / "dsv3_decode_in2000out100.json"
    done = run_program(
        "simulate",
        f"--address={simulated.address}",
        "--deployment=test/recorded",
        f"--load={recording}",
        "--windows=2",
        "--json",
    )
    windows = json.loads(done.stdout)["windows"]

    assert windows[1]["measured"] > windows[1]["without"] + 0.3


def test_a_planner_and_the_offline_command_agree(tmp_path: Path, simulated: Simulated) -> None:
    """`compute-plan` writes the same maps and figures as `plan`."""
    rng = np.random.default_rng(0)
    weight = rng.integers(1, 1000, size=(4, 64))
    weight[0] = 0
    np.savez(tmp_path / "load.npz", weight=weight)
    options = ["--ranks=8", "--nodes=2", "--slots=80", "--expert-groups=4", "--policy=balanced"]
    reports = {}
    for name, more in (("plan", []), ("compute-plan", [f"--address={simulated.address}"])):
        done = run_program(
            name,
            str(tmp_path / "load.npz"),
            *options,
            *more,
            f"--output={tmp_path / name}.npz",
            f"--report={tmp_path / name}.json",
        )
        assert done.returncode == 0, done.stderr
        reports[name] = json.loads((tmp_path / f"{name}.json").read_text())
    maps = {name: np.load(tmp_path / f"{name}.npz") for name in reports}

    for key in ("phy2log", "log2phy", "logcnt"):
        np.testing.assert_array_equal(maps["plan"][key], maps["compute-plan"][key])
    for key in ("policy", "mode", "sha256", "version"):
        assert reports["plan"][key] == reports["compute-plan"][key]
    assert reports["plan"]["mode"] == "hierarchical"
    assert reports["plan"]["version"] is None
    assert reports["plan"]["balancedness"] == pytest.approx(
        reports["compute-plan"]["balancedness"]
    )
    assert reports["plan"]["per_layer"][0] == reports["compute-plan"]["per_layer"][0] == 1.0


def test_demo_ends_well_with_its_table() -> None:
    """The demo needs nothing, exits 0 and shows windows, plans, balancedness and latency."""
    done = run_program("demo", "--windows=3")

    assert done.returncode == 0, done.stderr
    for row in (
        "windows",
        "plans published",
        "without Expertplane",
        "with Expertplane",
        "latency",
    ):
        assert row in done.stdout
