"""What Prometheus sees of a sidecar."""

from __future__ import annotations

import asyncio
import urllib.request
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from expertplane.v1 import placement_service_pb2 as placement_pb2
from expertplane_client import InputError
from expertplane_client.sidecar.metrics import METRICS, metrics_table

from .. import builders
from ..engine import COUNTS
from ..light import REPOSITORY
from .handoff import Bench, config, counts_document, running, until


if TYPE_CHECKING:
    from pathlib import Path

    from ..scripted_planner import ScriptedPlanner


async def scraped(app: Bench) -> dict[str, float]:
    """Returns every metric by its name without the prefix."""

    def fetch() -> str:
        with urllib.request.urlopen(f"http://{app.metrics_address}/metrics", timeout=20) as page:
            return str(page.read().decode())

    families = text_string_to_metric_families(await asyncio.to_thread(fetch))
    samples = (sample for family in families for sample in family.samples)
    return {sample.name.removeprefix("expertplane_sidecar_"): sample.value for sample in samples}


def test_the_manual_knows_every_metric() -> None:
    """The table in docs/sidecar.md is the one list of the metrics, row by row."""
    assert metrics_table() in (REPOSITORY / "docs" / "sidecar.md").read_text()
    assert len({row.name for row in METRICS}) == len(METRICS)


async def test_what_happens_is_counted(planner: ScriptedPlanner, tmp_path: Path) -> None:
    """Plan, engine, planner and reports show in the figures, over more than one engine."""
    settings = config(planner.address, tmp_path, metrics="127.0.0.1:0")
    async with running(settings) as app:
        before = await scraped(app)
        assert (before["connected"], before["engine_attached"], before["ready"]) == (0, 0, 0)
        assert before["planner_silence_seconds"] != before["planner_silence_seconds"]
        engine = await app.engine()
        await engine.hear("no_plan")
        stream, _ = await planner.welcomed()
        stream.say(commit=builders.commit(5))
        await engine.hear("commit")
        engine.say("applied", version=5, step=7)
        engine.say("load", first_step=7, counts=counts_document(COUNTS))
        report = await stream.hear("load_report")
        stream.say(report_ack=placement_pb2.ReportAck(sequence=report.sequence))
        stream.say(
            stage=placement_pb2.Stage(plan=builders.plan_message(6, rows=builders.OTHER_ROWS))
        )
        await engine.hear("stage")
        engine.say("staged", version=6)
        await until(lambda: app.sidecar.figures().staged_version == 6)
        during = await scraped(app)
        engine = await app.engine(engine_run_id="run-2")
        await engine.hear("plan")
        engine.say("applied", version=5, step=0)
        await planner.welcomed()
        after = await scraped(app)

    names = ("connected", "engine_attached", "ready", "applied_version", "staged_version")
    assert [during[name] for name in names] == [1, 1, 1, 5, 6]
    assert during["planner_silence_seconds"] >= 0
    counts = ("connects_total", "plans_total", "reports_sent_total", "reports_acked_total")
    assert [during[name] for name in counts] == [1, 1, 1, 1]
    assert after["reports_acked_total"] == 1
    assert after["engines_total"] == 2
    assert set(before) == {row.full_name.removeprefix("expertplane_sidecar_") for row in METRICS}


@pytest.mark.parametrize("service", ["metrics", "health"])
async def test_an_address_that_is_taken_is_named(tmp_path: Path, service: str) -> None:
    """A second sidecar on the same address does not start, and says why."""
    async with running(config("127.0.0.1:1", tmp_path, metrics="127.0.0.1:0")) as app:
        taken = {"metrics": app.metrics_address, "health": app.health_address}[service]
        with pytest.raises(InputError, match=f"for {service}"):
            async with running(config("127.0.0.1:1", tmp_path / "x", **{service: taken})):
                pass
