"""One recording of every engine, written by hand from its documentation, and what it means."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from expertplane_client.formats import FormatError, Recording, read_load

from .files import WEIGHT, save, save_json, save_pt, save_statistic


if TYPE_CHECKING:
    from pathlib import Path


ROWS = WEIGHT.tolist()
MOE_ROWS = ROWS[1:]


def check(
    recording: Recording, samples: Any, layer_ids: tuple[int, ...], num_rows: int | None
) -> None:
    """Compares everything that a recording says."""
    np.testing.assert_array_equal(samples, recording.samples)
    assert (recording.layer_ids, recording.num_rows) == (layer_ids, num_rows)


def test_sglang_json_has_a_row_per_hidden_layer(tmp_path: Path) -> None:
    """Layer ids pick rows by the model's layer number; the file's rows are remembered."""
    path = save_json(tmp_path, {"logical_count": ROWS})

    check(read_load(path), [ROWS], (0, 1, 2), 3)
    check(read_load(path, (1, 2)), [MOE_ROWS], (1, 2), 3)
    check(read_load(path, (1,)), [MOE_ROWS[:1]], (1,), 3)


def test_sglang_stat_drops_what_was_not_filled(tmp_path: Path) -> None:
    """The ring buffer's empty passes, wherever they lie, are left out, and it is said."""
    buffer = torch.tensor([ROWS, np.zeros_like(WEIGHT).tolist(), (2 * WEIGHT).tolist()])
    dump = {
        "rank": 0,
        "logical_count": buffer.int(),
        "average_utilization_rate_over_window": None,
    }
    found = read_load(save_pt(tmp_path, dump), (1, 2))

    check(found, [MOE_ROWS, (2 * WEIGHT[1:]).tolist()], (1, 2), 3)
    assert [note for note in found.notes if "1 of 3 passes" in note] == list(found.notes)


def test_an_empty_ring_buffer_is_told(tmp_path: Path) -> None:
    """A dump before the first pass is no recording."""
    dump = {"logical_count": torch.zeros(4, 3, 2, dtype=torch.int32)}

    with pytest.raises(FormatError, match="at least one pass with load"):
        read_load(save_pt(tmp_path, dump))


def test_vllm_history_has_a_row_per_moe_layer(tmp_path: Path) -> None:
    """An entry is a sample; layer ids name the rows, and without them nobody knows the layers."""
    history = {"load_history": [{"logical_expert_load": MOE_ROWS}] * 2}
    path = save_json(tmp_path, history)

    check(read_load(path, (1, 2)), [MOE_ROWS, MOE_ROWS], (1, 2), None)
    check(read_load(path, (4, 7)), [MOE_ROWS, MOE_ROWS], (4, 7), None)
    unnamed = read_load(path)
    check(unnamed, [MOE_ROWS, MOE_ROWS], (0, 1), None)
    assert "does not say which layers" in unnamed.notes[0]
    with pytest.raises(FormatError, match="layer ids for all 2 rows .*row per MoE layer, got 1"):
        read_load(path, (1,))


def test_tensorrt_llm_is_keyed_by_layer(tmp_path: Path) -> None:
    """Ranks are summed, iterations are samples in their numeric order, layers have their names."""
    ranks: dict[str, dict[str, Any]] = {
        "rank0.safetensors": {
            "10_3": [1, 0, 0],
            "10_4": [0, 1, 0],
            "9_3": [5, 0, 0],
            "9_4": [6, 0, 0],
        },
        "rank1.safetensors": {
            "10_3": [0, 0, 2],
            "10_4": [0, 0, 3],
            "9_3": [0, 7, 0],
            "9_4": [0, 8, 0],
        },
        "rank0_raw.safetensors": {"whatever": [[1, 2]]},
    }
    path = save_statistic(tmp_path, ranks)
    samples = [[[5, 7, 0], [6, 8, 0]], [[1, 0, 2], [0, 1, 3]]]

    check(read_load(path), samples, (3, 4), None)
    check(read_load(path, (4,)), [[rows[1]] for rows in samples], (4,), None)
    with pytest.raises(FormatError, match=r"layers that .* holds, 3 to 4, got \[5\]"):
        read_load(path, (3, 5))


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ({}, "of all ranks"),
        ({"rank1.safetensors": {"0_3": [1, 2, 3]}}, "of all ranks"),
        ({"rank0.safetensors": {"0": [1, 2, 3]}}, "keys ITERATION_LAYER"),
        ({"rank0.safetensors": {"0_3": [1, 2]}}, "3 token counts"),
        ({"rank0.safetensors": {"0_3": [1.0, 2.0, 3.0]}}, "3 token counts"),
        ({"rank0.safetensors": {"0_3": [1, -2, 3]}}, r"counts in \[0, \d+\), got -2 to 3"),
        ({"rank0.safetensors": {"0_3": [1, 2, 3], "1_4": [1, 2, 3]}}, "every layer in every"),
        ({"rank0.safetensors": {}}, "every layer in every"),
    ],
)
def test_a_statistic_with_gaps_is_refused(tmp_path: Path, ranks: Any, message: str) -> None:
    """Missing ranks, layers or experts are never taken for zeros."""
    with pytest.raises(FormatError, match=message):
        read_load(save_statistic(tmp_path, ranks))


def test_lmdeploy_is_a_bare_list(tmp_path: Path) -> None:
    """A list of hidden layers."""
    check(read_load(save_json(tmp_path, ROWS), (1, 2)), [MOE_ROWS], (1, 2), 3)


def test_fastdeploy_ranks_are_summed(tmp_path: Path) -> None:
    """The answer of the server as it came; one that is an error is told."""
    answer = {"code": 0, "msg": "ok", "data": [ROWS, ROWS]}

    check(read_load(save_json(tmp_path, answer)), [(2 * WEIGHT).tolist()], (0, 1, 2), 3)
    failed = save_json(tmp_path, {**answer, "code": 1, "msg": "user or passwd wrong"})
    with pytest.raises(FormatError, match="got 1: 'user or passwd wrong'"):
        read_load(failed)


@pytest.mark.parametrize("num_lines", [1, 2])
@pytest.mark.parametrize("input_format", [None, "rtp-llm"])
def test_rtp_llm_history_is_a_document_a_line(
    tmp_path: Path, num_lines: int, input_format: str | None
) -> None:
    """Its files end in .json although two lines are none; they are told by the first."""
    lines = [{"update_cnt": number, "log_stats": ROWS, "layer": 1} for number in range(num_lines)]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    path = save_json(tmp_path, text, "gpu_load_20260101-000000.json")

    check(read_load(path, input_format=input_format), [ROWS] * num_lines, (0, 1, 2), 3)


@pytest.mark.parametrize("text", ['{"a": 1}\n{"log_stats": []}', "[1] 2", '{"log_stats": 1} x'])
def test_other_lines_are_no_document(tmp_path: Path, text: str) -> None:
    """Only a first line of rtp-llm's makes a history of a file that goes on after its document."""
    with pytest.raises(FormatError, match="to hold JSON, got: Extra data"):
        read_load(save_json(tmp_path, text))


def test_sums_over_ranks_never_wrap_around(tmp_path: Path) -> None:
    """Each of two ranks may count to 2**61, so that their sum is one of int64."""
    rank = {"0_3": [2**61, 0, 0]}
    path = save_statistic(tmp_path, {f"rank{number}.safetensors": rank for number in range(2)})

    with pytest.raises(FormatError, match=rf"counts in \[0, {2**61}\), got 0 to {2**61}"):
        read_load(path)


@pytest.mark.parametrize(
    ("layer_ids", "kept", "rows", "num_rows"),
    [
        (None, (0, 1, 2), ROWS, None),
        ((1, 2), (1, 2), MOE_ROWS, 3),
        ((5, 6, 9), (5, 6, 9), ROWS, None),
    ],
)
def test_a_plain_array_is_rows_of_either_kind(
    tmp_path: Path, layer_ids: Any, kept: tuple[int, ...], rows: Any, num_rows: int | None
) -> None:
    """As many layer ids as rows name them, fewer pick rows: in .pt and in our own .npz."""
    for path in (save_pt(tmp_path, torch.tensor(ROWS)), save(tmp_path, weight=WEIGHT)):
        check(read_load(path, layer_ids), [rows], kept, num_rows)


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int16, torch.int64, torch.float16, torch.float64, torch.bfloat16]
)
def test_a_tensor_of_any_number_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    """Narrow integers and floats come out exactly."""
    found = read_load(save_pt(tmp_path, torch.tensor(ROWS).to(dtype)))

    np.testing.assert_array_equal([ROWS], found.samples)


def test_idle_layers_are_kept_and_told(tmp_path: Path) -> None:
    """A row without load may be a dense layer; only the user knows, so it stays."""
    found = read_load(save_json(tmp_path, ROWS))

    assert found.num_layers == 3
    assert [note for note in found.notes if note.startswith("No token in layers 0;")]


def test_a_format_by_name_counts_more_than_the_suffix(tmp_path: Path) -> None:
    """What the user says is right, or wrong; it is never overruled."""
    path = save_json(tmp_path, ROWS, "statistics.txt")

    check(read_load(path, input_format="lmdeploy"), [ROWS], (0, 1, 2), 3)
    with pytest.raises(FormatError, match="object with 'logical_count'"):
        read_load(path, input_format="sglang-json")
    with pytest.raises(FormatError, match="input format of npz, .*got 'sglang'"):
        read_load(path, input_format="sglang")


def test_an_unknown_document_names_what_is_known(tmp_path: Path) -> None:
    """The keys that were found stand beside the formats that they do not fit."""
    with pytest.raises(FormatError, match=r"sglang-json, vllm-json.*got \['loads'\]"):
        read_load(save_json(tmp_path, {"loads": ROWS}))
    (tmp_path / "folder").mkdir()
    with pytest.raises(FormatError, match="sglang-per-pass, trtllm"):
        read_load(tmp_path / "folder")
