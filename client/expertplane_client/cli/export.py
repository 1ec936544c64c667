"""`expertplane export`: a plan of the planner as a file for an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import numpy as np

from expertplane.v1 import deployment_pb2
from expertplane_client.console import (
    COUNT,
    FILE,
    address_option,
    errors_in_one_line,
    json_option,
    model_class_option,
    print_json,
)
from expertplane_client.errors import FormatError
from expertplane_client.formats import (
    ENGINES,
    PLACEMENT_FORMATS,
    EngineProfile,
    Model,
    PlacementMap,
    check_placement_path,
    engine_profile,
    write_placement,
)
from expertplane_client.formats.rows import Rows

from .common import VERSION, connect


if TYPE_CHECKING:
    from pathlib import Path

    from expertplane_client.plan import Plan


_PROFILE_NAMES = {
    deployment_pb2.ENGINE_VLLM: "vllm",
    deployment_pb2.ENGINE_SGLANG: "sglang",
    deployment_pb2.ENGINE_TENSORRT_LLM: "trtllm",
    deployment_pb2.ENGINE_VLLM_ASCEND: "ascend",
}


@click.command()
@click.argument("deployment")
@click.argument("output", type=FILE)
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    help="Refuse a plan that this engine would not take, and write its format; the deployment's "
    "engine by default.",
)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(PLACEMENT_FORMATS),
    help="What is written; the engine's own, or by the name of OUTPUT, by default.",
)
@click.option("--version", type=VERSION, help="Which plan; the committed by default.")
@click.option(
    "--hidden-layers",
    "num_hidden_layers",
    type=COUNT,
    help="Hidden layers of the model, a row each in SGLang's file.",
)
@model_class_option
@address_option
@json_option
def export(
    deployment: str,
    output: Path,
    engine: str | None,
    output_format: str | None,
    version: int | None,
    num_hidden_layers: int | None,
    model_class: str | None,
    address: str,
    is_json: bool,
) -> None:
    """Write a plan of DEPLOYMENT to OUTPUT, for an engine to start with."""
    with errors_in_one_line(), connect(address) as client:
        found = client.get_deployment(deployment)
        profile = _profile(engine, output_format, found.spec)
        written = output_format or (None if profile is None else profile.output_format)
        check_placement_path(
            output,
            output_format=written,
            num_hidden_layers=num_hidden_layers,
            model_class=model_class,
        )
        _check_hidden_layers(profile, num_hidden_layers, found.spec)
        plan = client.get_plan(deployment, version)
        placement = _placement(plan, found, num_hidden_layers)
        if profile is not None:
            profile.check(placement)
        model = None if model_class is None else Model(class_name=model_class)
        write_placement(output, placement, output_format=written, model=model)
    if is_json:
        print_json(
            {
                "output": str(output),
                "format": written,
                "deployment": deployment,
                "version": plan.version,
                "num_layers": plan.num_layers,
                "num_slots": plan.num_slots,
                "sha256": plan.digest,
            }
        )
        return
    kind = "" if written is None else f" as {written}"
    click.echo(f"wrote version {plan.version} of {deployment}{kind} to {output}")


def _profile(
    engine: str | None, output_format: str | None, spec: deployment_pb2.DeploymentSpec
) -> EngineProfile | None:
    """Returns the engine to write for: the one asked for, else the deployment's."""
    if engine is None and output_format is None:
        engine = _PROFILE_NAMES.get(spec.engine.engine)
    return None if engine is None else engine_profile(engine)


def _check_hidden_layers(
    profile: EngineProfile | None,
    num_hidden_layers: int | None,
    spec: deployment_pb2.DeploymentSpec,
) -> None:
    if profile is not None and profile.rows is Rows.HIDDEN and num_hidden_layers is None:
        raise FormatError(
            f"Expected --hidden-layers for {profile.title}, whose file has {profile.rows.value}, "
            f"got none: such as --hidden-layers {max(spec.layer_ids, default=0) + 1}."
        )


def _placement(
    plan: Plan, deployment: deployment_pb2.Deployment, num_hidden_layers: int | None
) -> PlacementMap:
    """Returns a plan as files hold it, with the layers and ranks that its deployment has.

    Raises:
        FormatError: the plan is for an earlier topology, whose layers nobody knows any more.
    """
    if plan.generation != deployment.generation:
        raise FormatError(
            f"Expected a plan of generation {deployment.generation} of {deployment.name}, got "
            f"version {plan.version} of generation {plan.generation}: its layers and ranks are "
            f"not known any more."
        )
    spec = deployment.spec
    return PlacementMap(
        phy2log=plan.phy2log.astype(np.int64),
        num_logical_experts=plan.num_logical_experts,
        num_ranks=spec.topology.num_nodes * spec.topology.ranks_per_node,
        layer_ids=tuple(spec.layer_ids),
        num_rows=num_hidden_layers,
        source=f"version {plan.version} of {deployment.name}",
    )
