"""Deployment specs as people write them."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings, strategies as st

from expertplane.v1 import deployment_pb2 as pb
from expertplane_client.errors import FormatError
from expertplane_client.spec_document import (
    changed_fields,
    deployments_of,
    document_of,
    with_defaults,
)
from expertplane_client.spec_file import read_deployments
from expertplane_server.core import parameters

from . import builders
from .light import REPOSITORY


if TYPE_CHECKING:
    from pathlib import Path


NAME = builders.DEPLOYMENT
EXAMPLE = REPOSITORY / "docs" / "deployment.example.toml"

_TEXT = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=20)
_SMALL = st.integers(0, 2**32 - 1)
_LARGE = st.integers(0, 2**64 - 1)
_NUMBER = st.floats(allow_nan=False, allow_infinity=False)


def _part(kind: type[Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Returns messages of a kind with any of some fields set."""
    return st.fixed_dictionaries({}, optional=fields).map(lambda values: kind(**values))


def _numbers_of(kind: type[Any], *but: str) -> dict[str, st.SearchStrategy[Any]]:
    """Returns what the plain numbers and flags of a message may be."""
    strategies = {1: _NUMBER, 13: _SMALL, 4: _LARGE, 8: st.booleans()}
    return {
        field.name: strategies[field.type]
        for field in kind.DESCRIPTOR.fields
        if field.type in strategies and field.name not in but
    }


SPECS = _part(
    pb.DeploymentSpec,
    model_name=_TEXT,
    layer_ids=st.lists(_SMALL, max_size=6).map(sorted) | st.lists(_SMALL, max_size=6),
    num_logical_experts=_SMALL,
    num_expert_groups=_SMALL,
    topology=_part(
        pb.Topology,
        **_numbers_of(pb.Topology, "masked_ranks", "rank_capacities"),
        masked_ranks=st.lists(st.integers(0, 20), max_size=6, unique=True).map(sorted),
        rank_capacities=st.lists(_NUMBER, max_size=4),
    ),
    engine=_part(
        pb.EngineProfile,
        **_numbers_of(pb.EngineProfile),
        engine=st.sampled_from(pb.Engine.values()),
    ),
    policy=_part(
        pb.PolicySpec,
        **_numbers_of(pb.PolicySpec),
        name=_TEXT,
        parameters=st.dictionaries(_TEXT, _TEXT, max_size=3),
        mode=st.sampled_from(pb.Mode.values()),
    ),
    forecast=_part(pb.ForecastParameters, **_numbers_of(pb.ForecastParameters)),
    trigger=_part(pb.TriggerParameters, **_numbers_of(pb.TriggerParameters)),
    samples=_part(pb.SampleParameters, **_numbers_of(pb.SampleParameters)),
    rollout=_part(
        pb.RolloutParameters,
        **_numbers_of(pb.RolloutParameters),
        mode=st.sampled_from(pb.RolloutMode.values()),
    ),
    migration=_part(pb.MigrationParameters, **_numbers_of(pb.MigrationParameters)),
)


def _toml(value: Any) -> str:
    """Returns a value as TOML; its text and numbers are those of JSON."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


@settings(max_examples=150, deadline=None)
@given(SPECS)
@example(pb.DeploymentSpec(policy=pb.PolicySpec(seed=2**64 - 1)))
@example(pb.DeploymentSpec(trigger=pb.TriggerParameters(min_gain=5e-324, horizon_s=1.7e308)))
@example(pb.DeploymentSpec(layer_ids=[2**32 - 2, 2**32 - 1]))
def test_a_spec_survives_its_way_through_both_files(
    tmp_path_factory: pytest.TempPathFactory, spec: pb.DeploymentSpec
) -> None:
    """What is written as TOML or YAML is read as the same message, to the bit."""
    folder = tmp_path_factory.getbasetemp()
    document = {"name": NAME} | document_of(spec)
    (folder / "spec.toml").write_text(
        "\n".join(f"{key} = {_toml(value)}" for key, value in document.items())
    )
    (folder / "spec.yaml").write_text(json.dumps(document))  # JSON is YAML

    for name in ("spec.toml", "spec.yaml"):
        ((found_name, found),) = read_deployments(folder / name)
        assert found_name == NAME
        assert found == spec


def test_keys_are_those_of_the_wire() -> None:
    """Numbers, text, enums, flags, lists and tables, each in the way people write it."""
    document = {
        "name": NAME,
        "model_name": "tiny",
        "layer_ids": "3-5,8",
        "topology": {"num_nodes": 2, "masked_ranks": [1], "rank_capacities": [1, 0.5]},
        "engine": {"engine": "vllm_ascend", "forbid_duplicates_on_rank": True},
        "policy": {"mode": "soft-hierarchical", "parameters": {"risk": 1.5, "fast": True}},
        "trigger": {"cooldown_s": 300},
        "rollout": {"mode": "coordinated"},
    }
    ((name, spec),) = deployments_of(document, source="x.toml")

    assert name == NAME
    assert spec == pb.DeploymentSpec(
        model_name="tiny",
        layer_ids=[3, 4, 5, 8],
        topology=pb.Topology(num_nodes=2, masked_ranks=[1], rank_capacities=[1, 0.5]),
        engine=pb.EngineProfile(engine=pb.ENGINE_VLLM_ASCEND, forbid_duplicates_on_rank=True),
        policy=pb.PolicySpec(
            mode=pb.MODE_SOFT_HIERARCHICAL, parameters={"risk": "1.5", "fast": "true"}
        ),
        trigger=pb.TriggerParameters(cooldown_s=300.0),
        rollout=pb.RolloutParameters(mode=pb.ROLLOUT_MODE_COORDINATED),
    )


def test_a_file_may_describe_several() -> None:
    """Each under a name of its own, in the order of the file."""
    document = {"deployments": [{"name": "a/b", "num_logical_experts": 4}, {"name": "a/a"}]}
    found = deployments_of(document, source="x.toml")

    assert [name for name, _ in found] == ["a/b", "a/a"]
    assert found[0][1].num_logical_experts == 4


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "Expected x.toml to hold names and values, got list."),
        ({}, "Expected name in x.toml, such as 'prod/deepseek-v3', got none."),
        ({"name": 3}, "Expected name in x.toml, such as 'prod/deepseek-v3', got int."),
        ({"name": "tiny"}, "name in x.toml: Expected deployment to be 'namespace/name'"),
        ({"deployments": []}, "Expected deployments in x.toml to be a list"),
        ({"deployments": [3]}, "Expected deployments[0] in x.toml to hold names and values"),
        ({"deployments": [{"name": NAME}], "name": NAME}, "Expected only 'deployments' at the"),
        ({"deployments": [{"name": NAME}, {"name": NAME}]}, f"Expected {NAME} once in x.toml"),
        (
            {"deployments": [{"name": NAME, "topology": {"num_node": 1}}]},
            "got deployments[0].topology.num_node in x.toml; did you mean num_nodes.",
        ),
        ({"name": NAME, "spec": {}}, "got spec in x.toml: it has model_name, layer_ids"),
        ({"name": NAME, "topology": 4}, "Expected topology in x.toml to be a table"),
        ({"name": NAME, "layer_ids": "5-3"}, "Expected layer_ids in x.toml to be ascending num"),
        ({"name": NAME, "layer_ids": 5}, "Expected layer_ids in x.toml to be a list, or a range"),
        ({"name": NAME, "layer_ids": [-1]}, "to be a whole number from 0 to 4294967295, got [-1]"),
        ({"name": NAME, "num_logical_experts": 4.0}, "a whole number from 0 to 4294967295"),
        ({"name": NAME, "num_logical_experts": True}, "a whole number from 0 to 4294967295"),
        ({"name": NAME, "trigger": {"min_gain": "2 %"}}, "trigger.min_gain in x.toml to be a num"),
        ({"name": NAME, "trigger": {"min_gain": math.inf}}, "trigger.min_gain in x.toml to be a"),
        ({"name": NAME, "rollout": {"mode": "both"}}, "be one of shadow, advisory, coordinated,"),
        ({"name": NAME, "rollout": {"mode": "unspecified"}}, "be one of shadow, advisory, coord"),
        ({"name": NAME, "engine": {"forbid_moves_inside_rank": 1}}, "to be true or false, got 1"),
        ({"name": NAME, "model_name": 3}, "Expected model_name in x.toml to be text, got 3."),
        ({"name": NAME, "policy": {"parameters": 3}}, "policy.parameters in x.toml to be a table"),
        ({"name": NAME, "policy": {"parameters": {"a": []}}}, "names and plain values"),
        (
            {"name": NAME, "topology": {"rank_capacities": "0-3"}},
            "topology.rank_capacities in x.toml to be a list of numbers, got '0-3'.",
        ),
    ],
)
def test_a_slip_is_told_with_its_path(document: Any, message: str) -> None:
    """What is expected, where, and what is there; nothing of the file is used."""
    with pytest.raises(FormatError) as caught:
        deployments_of(document, source="x.toml")

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "name = ", "to hold TOML, got"),
        ("a.toml", "name = 'a/b'\nname = 'a/c'", "to hold TOML, got"),
        ("a.yaml", "name: a/b\nname: a/c", "repeated"),
        ("a.yaml", "a: &x 1\nb: *x", "anchor"),
        ("a.json", "{}", "ends in .toml, .yaml or .yml"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    """A key that comes twice is a slip in both kinds of files."""
    path = tmp_path / name
    path.write_text(text)

    with pytest.raises(FormatError, match=message):
        read_deployments(path)


def test_yaml_is_read_as_people_write_it(tmp_path: Path) -> None:
    """Fractions and flags without quotes are numbers and flags; text in quotes stays text."""
    path = tmp_path / "a.yml"
    path.write_text(
        f"name: {NAME}\n"
        "model_name: '1.5'\n"
        "layer_ids: 3-5\n"
        "trigger: {min_gain: 0.02, cooldown_s: 3e2}\n"
        "engine: {engine: vllm, forbid_duplicates_on_rank: true}\n"
    )
    ((_, spec),) = read_deployments(path)

    assert (spec.model_name, list(spec.layer_ids)) == ("1.5", [3, 4, 5])
    assert (spec.trigger.min_gain, spec.trigger.cooldown_s) == (0.02, 300.0)
    assert spec.engine.forbid_duplicates_on_rank


def test_changes_are_named_by_path() -> None:
    """Old and new value of each field that differs, and None for what is not there."""
    old = builders.spec(trigger=pb.TriggerParameters(cooldown_s=60.0))
    new = builders.spec(
        layer_ids=[3, 4, 5],
        model_name="",
        policy=pb.PolicySpec(name="deepseek", max_moved_slots_per_layer=0),
    )

    assert changed_fields(old, new) == {
        "model_name": ("tiny", None),
        "layer_ids": ("3-4", "3-5"),
        "trigger.cooldown_s": (60.0, 0.0),
        "policy.max_moved_slots_per_layer": (None, 0),
    }


def test_a_default_is_no_change() -> None:
    """A spec equals the same spec with the defaults of the contract spelt out."""
    spec = builders.spec()
    full = with_defaults(spec)

    assert full != spec
    assert changed_fields(spec, full) == {}
    assert with_defaults(full) == full


@pytest.mark.parametrize("part", ["forecast", "trigger", "samples", "rollout", "migration"])
def test_defaults_are_those_of_the_planner(part: str) -> None:
    """What the client takes for the default of an absent field is what the planner takes."""
    planner: dict[str, Any] = {
        "forecast": parameters.ForecastParameters(),
        "trigger": parameters.TriggerParameters(),
        "samples": parameters.SampleParameters(),
        "rollout": parameters.RolloutParameters(),
        "migration": parameters.MigrationParameters(),
    }
    message = getattr(with_defaults(pb.DeploymentSpec()), part)
    names = [field.name for field in message.DESCRIPTOR.fields if field.name != "mode"]

    assert {name: getattr(message, name) for name in names} == {
        name: getattr(planner[part], name) for name in names
    }


def test_the_example_is_a_deployment() -> None:
    """The file that the documentation shows is in order, and its numbers fit each other."""
    ((name, spec),) = read_deployments(EXAMPLE)

    assert name == "prod/deepseek-v3"
    topology = spec.topology
    num_slots = topology.num_nodes * topology.ranks_per_node * topology.slots_per_rank
    assert (len(spec.layer_ids), num_slots) == (58, 288)
    assert spec.rollout.mode == pb.ROLLOUT_MODE_COORDINATED
