"""One placement of every engine, written by hand from its documentation, in and out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import yaml

from expertplane_client.formats import FormatError, Model, read_placement, write_placement

from .files import PHY2LOG, PHY2LOG_APART, model_of, placement, save_json, save_pt


if TYPE_CHECKING:
    from pathlib import Path


START = [0, 1, 2, 3, 0, 1]
"""Row of a dense layer: slot % experts."""

ASCEND = {
    "moe_layer_count": 1,
    "layer_list": [
        {
            "layer_id": 0,
            "device_count": 2,
            "device_list": [
                {"device_id": 0, "device_expert": [7, 2, 0, 3, 5]},
                {"device_id": 1, "device_expert": [6, 1, 4, 7, 2]},
            ],
        }
    ],
}


def test_sglang_gets_one_key_and_a_row_per_hidden_layer(tmp_path: Path) -> None:
    """SGLang splats the object, so any other key would end it; dense rows hold valid experts."""
    path = tmp_path / "init.json"
    write_placement(path, placement(), output_format="sglang")

    assert json.loads(path.read_text()) == {
        "physical_to_logical_map": [START, START, START, *PHY2LOG, START]
    }
    found = read_placement(path, layer_ids=(3, 4))
    np.testing.assert_array_equal(PHY2LOG, found.phy2log)
    assert (found.layer_ids, found.num_rows, found.num_logical_experts) == ((3, 4), 6, 4)
    assert found.num_ranks is None
    assert read_placement(path).num_layers == 6


def test_sglang_with_a_second_key_is_refused(tmp_path: Path) -> None:
    """The engine would not start with it."""
    document = {"physical_to_logical_map": PHY2LOG, "num_layers": 2}

    with pytest.raises(FormatError, match="'physical_to_logical_map' and no other"):
        read_placement(save_json(tmp_path, document))


def test_vllm_gets_the_tensor_that_a_policy_returns(tmp_path: Path) -> None:
    """An int64 tensor of the MoE layers; layer ids name its rows when it is read."""
    path = tmp_path / "plan.pt"
    write_placement(path, placement())

    tensor = torch.load(path, weights_only=True)
    assert (tensor.dtype, tensor.tolist()) == (torch.int64, PHY2LOG)
    found = read_placement(path, layer_ids=(3, 4), num_ranks=3)
    np.testing.assert_array_equal(PHY2LOG, found.phy2log)
    assert (found.layer_ids, found.num_rows, found.num_ranks) == ((3, 4), None, 3)
    np.testing.assert_array_equal([[2, 2, 1, 1], [3, 1, 1, 1]], found.logcnt())
    np.testing.assert_array_equal(
        [
            [[0, 4, -1], [1, 5, -1], [2, -1, -1], [3, -1, -1]],
            [[0, 2, 4], [3, -1, -1], [1, -1, -1], [5, -1, -1]],
        ],
        found.log2phy(),
    )


def test_tensorrt_llm_gets_the_models_layer_numbers(tmp_path: Path) -> None:
    """Any YAML reader sees the documented keys and no others."""
    path = tmp_path / "moe_load_balancer.yaml"
    write_placement(path, placement())

    assert yaml.safe_load(path.read_text()) == {
        "initial_global_assignments": {3: PHY2LOG[0], 4: PHY2LOG[1]},
        "num_slots": 6,
        "layer_updates_per_iter": 0,
    }


def test_tensorrt_llm_is_read_in_block_style_too(tmp_path: Path) -> None:
    """By hand, with a comment, layers out of order."""
    text = """
initial_global_assignments:   # model layer id -> slots
  4: [0, 2, 0, 1, 0, 3]
  3:
    - 0
    - 1
    - 2
    - 3
    - 0
    - 1
num_slots: 6
layer_updates_per_iter: 0
"""
    path = save_json(tmp_path, text, "moe_load_balancer.yml")

    found = read_placement(path)
    np.testing.assert_array_equal(PHY2LOG, found.phy2log)
    assert found.layer_ids == (3, 4)
    assert read_placement(path, layer_ids=(4,)).phy2log.tolist() == PHY2LOG[1:]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ep_size": 2}, r"no others, got \['ep_size'\]"),
        ({"num_slots": 5}, "5 slots in layer 3"),
        ({"num_slots": "6x"}, "type int, got str"),
        ({"initial_global_assignments": {"layer": [0]}}, "keyed by layer numbers"),
        ({"initial_global_assignments": {}}, "keyed by layer numbers"),
        ({"initial_global_assignments": [1]}, "type dict, got list"),
        ({"initial_global_assignments": {3: ["a"] * 6}}, "integers only"),
        ({"layer_updates_per_iter": [1]}, "type int"),
    ],
)
def test_a_yaml_that_the_engine_refuses_is_refused(
    tmp_path: Path, changes: Any, message: str
) -> None:
    """TensorRT-LLM takes no unknown key and no row of another length."""
    document = {"initial_global_assignments": {3: PHY2LOG[0]}, "num_slots": 6, **changes}
    path = tmp_path / "balancer.yaml"
    path.write_text(yaml.safe_dump(document))

    with pytest.raises(FormatError, match=message):
        read_placement(path)


def test_ascend_gets_a_list_per_device(tmp_path: Path) -> None:
    """The engine's own test file comes out of its placement, and back."""
    path = tmp_path / "expert_map.json"
    apart = placement(
        phy2log=np.array(PHY2LOG_APART), num_logical_experts=8, num_ranks=2, layer_ids=(3,)
    )
    write_placement(path, apart, output_format="ascend")

    assert json.loads(path.read_text()) == ASCEND
    found = read_placement(path, layer_ids=(3,))
    assert (found.phy2log.tolist(), found.num_ranks) == (PHY2LOG_APART, 2)
    assert found.layer_ids == (3,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"moe_layer_count": 2}, "2 layers in .*moe_layer_count says, got 1"),
        ({"layer_list": [{"device_count": 1, "device_list": []}]}, "1 devices"),
        ({"layer_list": [{"device_list": []}]}, "'device_count'"),
        ({"layer_list": [3]}, "'device_list'"),
        ({"layer_list": {}}, "type list, got dict"),
    ],
)
def test_an_expert_map_that_contradicts_itself_is_refused(
    tmp_path: Path, changes: Any, message: str
) -> None:
    """Counts must be those of the lists."""
    with pytest.raises(FormatError, match=message):
        read_placement(save_json(tmp_path, {**ASCEND, **changes}))


def test_omni_gets_a_pattern(tmp_path: Path) -> None:
    """1 where hosted; the slots of a rank come back in ascending order of experts."""
    path = tmp_path / "pattern.npy"
    apart = placement(
        phy2log=np.array(PHY2LOG_APART), num_logical_experts=8, num_ranks=2, layer_ids=(3,)
    )
    write_placement(path, apart)

    pattern = np.load(path)
    assert pattern.dtype == np.int32
    assert pattern.tolist() == [[[1, 0, 1, 1, 0, 1, 0, 1]], [[0, 1, 1, 0, 1, 0, 1, 1]]]
    found = read_placement(path)
    assert found.phy2log.tolist() == [[0, 2, 3, 5, 7, 1, 2, 4, 6, 7]]
    assert (found.num_ranks, found.num_logical_experts) == (2, 8)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ([[[1, 1]], [[1, 0]]], "2 experts on every rank .* got 1 on rank 1 in row 0"),
        ([[[1, 2]]], "0 or 1 .* got 2"),
        ([[[0, 0]]], r"\[layers, slots\]"),
        ([[1, 1]], r"\[ranks, layers, experts\]"),
        ([[[1, 0]], [[1, 0]]], "got none for expert 1"),
        ([[[1.0, 1.0]]], "of integers"),
    ],
)
def test_a_pattern_that_is_no_placement_is_refused(
    tmp_path: Path, pattern: Any, message: str
) -> None:
    """Uneven ranks, other numbers and experts without a rank are each told."""
    path = tmp_path / "pattern.npy"
    np.save(path, np.array(pattern))

    with pytest.raises(FormatError, match=message):
        read_placement(path)


def test_hygon_gets_a_map_by_the_models_class(tmp_path: Path) -> None:
    """The key is the class, and the entry says it once more, as its loader demands."""
    path = tmp_path / "map.json"
    names = Model(name="/models/hy4", class_name="HYV4ForCausalLM")
    write_placement(path, placement(), output_format="hygon", model=names)

    assert json.loads(path.read_text()) == {
        "version": 2,
        "format": "vllm_offline_eplb_physical_to_logical_by_model",
        "model_maps": {
            "HYV4ForCausalLM": {
                "record_kind": "proposal",
                "model_name": "/models/hy4",
                "model_class": "HYV4ForCausalLM",
                "num_moe_layers": 2,
                "num_logical_experts": 4,
                "num_physical_experts": 6,
                "num_redundant_experts": 2,
                "physical_to_logical_map": PHY2LOG,
            }
        },
    }
    assert read_placement(path, layer_ids=(3, 4)).phy2log.tolist() == PHY2LOG


def test_hygon_with_several_models_wants_to_know_which(tmp_path: Path) -> None:
    """A file may hold the model and its draft model."""
    path = tmp_path / "map.json"
    write_placement(path, placement(), output_format="hygon", model=model_of("hygon"))
    document = json.loads(path.read_text())
    document["model_maps"]["Draft"] = document["model_maps"]["DeepseekV3ForCausalLM"]
    save_json(tmp_path, document, "map.json")

    assert read_placement(path, model_class="Draft").phy2log.tolist() == PHY2LOG
    with pytest.raises(FormatError, match="to be told which, got .'DeepseekV3ForCausalLM'"):
        read_placement(path)
    with pytest.raises(FormatError, match="object with 'Other'"):
        read_placement(path, model_class="Other")
    with pytest.raises(FormatError, match="version 2, got 'other', version 2"):
        read_placement(save_json(tmp_path, {**document, "format": "other"}, "other.json"))
    document["model_maps"]["Draft"]["num_moe_layers"] = 3
    with pytest.raises(FormatError, match="'num_moe_layers' of .* to be 2, got 3"):
        read_placement(save_json(tmp_path, document, "map.json"), model_class="Draft")


def test_hygon_is_told_the_model(tmp_path: Path) -> None:
    """No class is guessed; without a name the model goes by its class."""
    path = tmp_path / "map.json"
    with pytest.raises(FormatError, match="class for the format hygon, .*got none"):
        write_placement(path, placement(), output_format="hygon")
    assert not path.exists()

    names = Model(class_name="Qwen3MoeForCausalLM")
    write_placement(path, placement(), output_format="hygon", model=names)
    (entry,) = json.loads(path.read_text())["model_maps"].values()
    assert entry["model_name"] == entry["model_class"] == "Qwen3MoeForCausalLM"


def test_a_model_is_for_hygons_files_alone(tmp_path: Path) -> None:
    """With any other file it would do nothing."""
    path = tmp_path / "plan.json"
    write_placement(path, placement(), output_format="json")

    with pytest.raises(FormatError, match="only with the format hygon, got 'Any' with .* json"):
        read_placement(path, model_class="Any")


@pytest.mark.parametrize("key", ["physical_to_logical_map", "expert_map"])
def test_the_legacy_map_of_hygon_is_read(tmp_path: Path, key: str) -> None:
    """One flat object; with the map alone it is SGLang's too, unless the format is named."""
    path = save_json(tmp_path, {key: PHY2LOG})

    found = read_placement(path, layer_ids=(3, 4), input_format="hygon")
    assert (found.phy2log.tolist(), found.num_rows) == (PHY2LOG, None)


def test_own_json_says_everything(tmp_path: Path) -> None:
    """Nothing has to be told again when it is read."""
    path = tmp_path / "plan.json"
    write_placement(path, placement(), output_format="json")
    found = read_placement(path)

    assert found.phy2log.tolist() == PHY2LOG
    assert (found.num_logical_experts, found.num_ranks) == (4, 3)
    assert (found.layer_ids, found.num_rows) == ((3, 4), 6)


def test_own_npz_is_the_three_maps(tmp_path: Path) -> None:
    """As `write_plan_npz` writes them; layer ids name the rows or pick some."""
    path = tmp_path / "plan.npz"
    write_placement(path, placement())

    with np.load(path, allow_pickle=False) as maps:
        assert sorted(maps) == ["log2phy", "logcnt", "phy2log"]
        assert maps["phy2log"].tolist() == PHY2LOG
    assert read_placement(path, layer_ids=(3, 4)).layer_ids == (3, 4)
    assert read_placement(path, layer_ids=(1,)).phy2log.tolist() == PHY2LOG[1:]


def test_the_files_word_and_the_callers_must_agree(tmp_path: Path) -> None:
    """An incumbent of another size is no incumbent."""
    path = tmp_path / "plan.json"
    write_placement(path, placement(), output_format="json")

    with pytest.raises(FormatError, match="Expected 5 logical experts in .*, got 4"):
        read_placement(path, num_logical_experts=5)
    with pytest.raises(FormatError, match="Expected 2 ranks in .*, got 3"):
        read_placement(path, num_ranks=2)
    tensor = save_pt(tmp_path, torch.tensor(PHY2LOG))
    with pytest.raises(FormatError, match=r"got none for expert 4 in layer 0 \(row 0\)"):
        read_placement(tensor, num_logical_experts=5)
    with pytest.raises(FormatError, match="shared evenly by the ranks, got 4"):
        read_placement(tensor, num_ranks=4)
