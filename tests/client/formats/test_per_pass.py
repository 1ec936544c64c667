"""SGLang's recorder in the mode per_pass: a file per rank, slots to be mapped to experts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from expertplane_client.formats import FormatError, read_load

from .files import save_pt


if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


MAP = [[0, 1, 0], [0, 1, 1]]
"""Two hidden layers of three slots and two experts; the first is dense."""


def save_rank(
    folder: Path, rank: int, passes: Mapping[int, Any], *, phy2log: Any = MAP, time: str = "17.5"
) -> Path:
    """Writes the file of a rank as SGLang does."""
    records = [
        {
            "forward_pass_id": number,
            "rank": rank,
            "gatherer_key": "primary",
            "global_physical_count": torch.tensor(counts),
        }
        for number, counts in passes.items()
    ]
    content = {"records": records, "last_physical_to_logical_map": torch.tensor(phy2log)}
    return save_pt(folder, content, f"expert_distribution_recorder_{time}_{rank}.pt")


def test_slots_are_summed_over_ranks_and_mapped(tmp_path: Path) -> None:
    """Passes come in order, summed over ranks; slots 1 and 2 of layer 1 hold the same expert."""
    save_rank(tmp_path, 0, {8: [[0, 0, 0], [1, 0, 0]], 7: [[0, 0, 0], [1, 2, 3]]})
    save_rank(tmp_path, 1, {8: [[0, 0, 0], [4, 0, 5]], 7: [[0, 0, 0], [10, 20, 30]]}, time="17.6")
    found = read_load(tmp_path)

    np.testing.assert_array_equal([[[0, 0], [11, 55]], [[0, 0], [5, 5]]], found.samples)
    assert (found.layer_ids, found.num_rows) == ((0, 1), 2)
    np.testing.assert_array_equal([[[11, 55]], [[5, 5]]], read_load(tmp_path, (1,)).samples)


def test_a_single_file_is_read_and_told(tmp_path: Path) -> None:
    """Nobody knows from one file how many ranks there were."""
    found = read_load(save_rank(tmp_path, 0, {0: [[0, 0, 0], [1, 2, 3]]}))

    np.testing.assert_array_equal([[[0, 0], [1, 5]]], found.samples)
    assert "One rank's file alone" in found.notes[0]


def test_passes_without_all_ranks_are_left_out_and_told(tmp_path: Path) -> None:
    """Part of a pass would look like an imbalance that never was."""
    save_rank(tmp_path, 0, {1: [[0, 0, 0], [1, 1, 1]], 2: [[0, 0, 0], [9, 9, 9]]})
    save_rank(tmp_path, 1, {1: [[0, 0, 0], [1, 1, 1]]})
    found = read_load(tmp_path)

    np.testing.assert_array_equal([[[0, 0], [2, 4]]], found.samples)
    assert "Left out 1 of 2 passes" in found.notes[0]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"rank": 1, "phy2log": [[0, 1, 0], [1, 0, 1]]}, "same .* on all ranks"),
        ({"rank": 2}, r"of all ranks from 0 .*got ranks \[0, 2\]"),
        ({"rank": 0, "time": "18.0"}, "one recording .*two of rank 0"),
        ({"rank": 1, "passes": {5: [[0, 0, 0], [1, 1, 1]]}}, "a pass that all ranks"),
        ({"rank": 1, "passes": {1: [[0, 0], [1, 1]]}}, r"shape \[2, 3\] as the map"),
        ({"rank": 1, "passes": {1: [[0, 0, 0], [1, -1, 1]]}}, "integers in .* from -1 to 1"),
        ({"rank": 1, "passes": {1: [[0, 0, 0], [1, 2**31, 1]]}}, "from 0 to 2147483648"),
        ({"rank": 1, "phy2log": [[0, 1, 3], [0, 1, 1]]}, r"in \[0, 3\), got 0 to 3"),
        ({"rank": 1, "phy2log": [[0, 1, -1], [0, 1, 1]]}, r"got -1 to 1"),
    ],
)
def test_ranks_that_do_not_fit_are_refused(tmp_path: Path, second: Any, message: str) -> None:
    """The files of a folder must be all ranks of one recording with one map."""
    passes = {1: [[0, 0, 0], [1, 1, 1]]}
    save_rank(tmp_path, 0, passes)
    save_rank(tmp_path, **{"passes": passes, **second})

    with pytest.raises(FormatError, match=message):
        read_load(tmp_path)


def test_a_file_under_another_ranks_name_is_refused(tmp_path: Path) -> None:
    """Two copies of one rank must not pass for two ranks."""
    path = save_rank(tmp_path, 0, {1: [[0, 0, 0], [1, 1, 1]]})
    path.with_name("expert_distribution_recorder_17.5_1.pt").write_bytes(path.read_bytes())

    with pytest.raises(FormatError, match="of rank 1 as its name says, got 0"):
        read_load(tmp_path)


@pytest.mark.parametrize(
    ("record", "found"),
    [
        ({"forward_pass_id": [1]}, "'forward_pass_id', got list"),
        (3, "'forward_pass_id', got 3"),
        ({"forward_pass_id": 1, "rank": [[0]]}, "as its name says, got list"),
        ({"forward_pass_id": 1, "rank": "a" * 99}, f"as its name says, got '{'a' * 40}'"),
    ],
)
def test_what_is_found_is_told_by_its_type(tmp_path: Path, record: Any, found: str) -> None:
    """Numbers and text are shown, cut; the text of a list is never made, it might have no end."""
    content = {"records": [record], "last_physical_to_logical_map": torch.tensor([[0, 1]])}
    save_pt(tmp_path, content, "expert_distribution_recorder_1.5_0.pt")

    with pytest.raises(FormatError, match=rf"{found}\.$"):
        read_load(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        {"records": None},
        {"records": []},
        {"records": [], "last_physical_to_logical_map": torch.tensor([[0, 1]])},
        {"records": [3], "last_physical_to_logical_map": torch.tensor([[0, 1]])},
        {"records": [{}], "last_physical_to_logical_map": torch.tensor([[0, 1]])},
        {"records": [], "last_physical_to_logical_map": torch.tensor([[0.5, 1.0]])},
        {"records": [], "last_physical_to_logical_map": torch.tensor([0, 1])},
        {"records": [], "last_physical_to_logical_map": [[0, 1]]},
        {
            "records": [{"forward_pass_id": True, "global_physical_count": torch.ones(1, 2)}],
            "last_physical_to_logical_map": torch.tensor([[0, 1]]),
        },
    ],
    ids=str,
)
def test_records_of_other_kinds_are_refused(tmp_path: Path, content: Any) -> None:
    """Wrong keys and types are each told in one sentence."""
    with pytest.raises(FormatError, match="Expected"):
        read_load(save_pt(tmp_path, content))
