"""A real planner whose device fails goes on without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertplane.v1 import decision_pb2
from expertplane_client import Client
from expertplane_server.runtime.device_faults import VARIABLE

from ..support.planner_process import run_program, running_planner, scrape
from .deployments import hot_counts
from .test_forecasts import create, eventually_shows, node


if TYPE_CHECKING:
    from pathlib import Path

SAVED = 'forecast_checkpoints_total{outcome="saved"}'
RESTORED = 'forecast_checkpoints_total{outcome="restored"}'


async def test_a_planner_goes_on_without_its_device(tmp_path: Path) -> None:
    """The plan under way is made on the CPU, the forecast comes back, and /metrics tells."""
    # Two plans are made to compile for the deployment, one for the first window.
    options, fault = ["--device=auto"], {VARIABLE: "lost:4"}
    with running_planner(tmp_path, options=options, environment=fault) as planner:
        assert 'expertplane_solver_device_info{device="cpu:0",name=""} 1.0' in scrape(planner)
        await create(planner)
        async with node(planner) as only, Client(planner.address) as client:
            await only.serve(planner, 1, seen=0)
            await eventually_shows(planner, SAVED, 1)
            # The plan for the second window is the one that fails.
            await only.serve(planner, 1, seen=1)
            await eventually_shows(planner, RESTORED, 1)
            await only.serve(planner, 1, seen=2)
            decisions = await client.explain_decisions("test/forecast")
        shown = scrape(planner).splitlines()

    assert 'expertplane_solver_device_failures_total{reason="lost"} 1.0' in shown
    assert 'expertplane_solver_device_failures_total{reason="out_of_memory"} 0.0' in shown
    assert 'expertplane_solver_device_info{device="cpu",name=""} 1.0' in shown
    assert not any('device="cpu:0"' in line for line in shown)
    assert len(decisions) == 3
    failed = decision_pb2.DECISION_REASON_FAILED_SOLVE
    assert not any(each.reason == failed for each in decisions)
    assert "device cpu:0 failed (lost)" in planner.log.read_text()


async def test_a_computed_plan_outlives_the_device(tmp_path: Path) -> None:
    """A plan that belongs to no deployment is answered as well when the device has no room."""
    options, fault = ["--device=cuda:0"], {VARIABLE: "out_of_memory:1"}
    with running_planner(tmp_path, options=options, environment=fault) as planner:
        async with Client(planner.address) as client:
            plans = [
                await client.compute_plan(
                    hot_counts(0).sum(axis=0), num_nodes=1, num_ranks=4, num_slots=24
                )
                for _ in range(2)
            ]
        shown = scrape(planner).splitlines()

    assert plans[0].digest == plans[1].digest
    assert 'expertplane_solver_device_failures_total{reason="out_of_memory"} 1.0' in shown
    assert 'expertplane_solves_total{outcome="answer"} 2.0' in shown


def test_a_device_that_is_named_must_be_there(tmp_path: Path) -> None:
    """The planner does not start on another: exit code 1, and one line that names the device."""
    options = ["--listen=127.0.0.1:0", "--metrics=", f"--store=sqlite:///{tmp_path / 'x.db'}"]
    done = run_program("serve", "--device=cuda:99", "--log-level=ERROR", *options)

    assert done.returncode == 1
    assert "Expected a solver process on device cuda:99" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
