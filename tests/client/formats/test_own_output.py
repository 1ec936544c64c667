"""Plans and reports of our own, each file as a whole or not at all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from expertplane_client.formats import FormatError, write_plan_npz, write_report


if TYPE_CHECKING:
    from pathlib import Path


def test_a_plan_is_written_under_the_names_of_its_maps(tmp_path: Path) -> None:
    """The archive holds exactly the three maps, as integers."""
    path = tmp_path / "plan.npz"
    maps = ([[0, 1]], [[[0], [1]]], [[1, 1]])
    write_plan_npz(path, *(np.array(values, dtype=np.int32) for values in maps))

    with np.load(path, allow_pickle=False) as found:
        assert {"phy2log", "log2phy", "logcnt"} == set(found)
        np.testing.assert_array_equal([[0, 1]], found["phy2log"])
        assert {np.dtype(np.int64)} == {found[name].dtype for name in found}
    assert [file.name for file in tmp_path.iterdir()] == ["plan.npz"]


def test_a_report_is_json(tmp_path: Path) -> None:
    """A report can be read by whatever reads JSON; a figure that is no number is not written."""
    path = tmp_path / "report.json"
    write_report(path, {"balancedness": 0.5, "version": None})

    assert json.loads(path.read_text()) == {"balancedness": 0.5, "version": None}
    with pytest.raises(ValueError, match="JSON"):
        write_report(path, {"balancedness": float("nan")})
    assert json.loads(path.read_text()) == {"balancedness": 0.5, "version": None}


def test_an_output_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A wrong folder is named, and nothing is left behind."""
    with pytest.raises(FormatError, match="missing"):
        write_report(tmp_path / "missing" / "report.json", {})
