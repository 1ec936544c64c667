"""SGLang's recorder in the mode per_pass: a file per rank, counts of slots, pass by pass.

Each rank counts only what it sees, so the files of all ranks belong together: a folder with
`expert_distribution_recorder_{time}_{rank}.pt` of one recording. A single file is taken as a whole
recording of its own.

Source: sglang `srt/eplb/expert_distribution.py` (`_DetailAccumulator`), summed over ranks as its
`eplb_simulator/reader.py` does. Deviations: 1. a pass that not all ranks recorded is left out;
2. ranks that disagree about the map are refused, because the map has changed in between.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane_client.errors import FormatError

from .containers import Container
from .files import Folder
from .json_file import brief
from .numpy_file import MAX_ELEMENTS
from .rows import Rows
from .tables import LoadFormat, LoadTable
from .torch_file import TorchFile, read_torch, tensor_of


if TYPE_CHECKING:
    from numpy.typing import NDArray


MAX_COUNT = 2**31  # the engine counts in int32, and sums of these do not wrap around in int64

_FILE = re.compile(r"expert_distribution_recorder_[0-9.]+_(?P<rank>[0-9]{1,6})\.pt")
_RECORDS = "records"
_MAP = "last_physical_to_logical_map"
_COUNT = "global_physical_count"


def _parse(content: TorchFile | Folder, source: str) -> LoadTable:
    if isinstance(content, TorchFile):
        phy2log, passes = _passes_of(content, None, source)
        note = "One rank's file alone; where there were more ranks, give the folder of all files."
        return _table_of(phy2log, passes, (note,), source)
    names = _names_of(content, source)
    phy2log, total = _passes_of(read_torch(content.path / names[0]), 0, f"{source}/{names[0]}")
    num_seen = dict.fromkeys(total, 1)
    for rank, name in enumerate(names[1:], start=1):
        found, passes = _passes_of(read_torch(content.path / name), rank, f"{source}/{name}")
        if not np.array_equal(phy2log, found):
            raise FormatError(
                f"Expected the same {_MAP} on all ranks of {source}, got another on rank {rank}; "
                f"record again without a rebalance in between."
            )
        for number, counts in passes.items():
            total[number] = total[number] + counts if number in total else counts
            num_seen[number] = num_seen.get(number, 0) + 1
        _check_size(len(total), phy2log, source)
    whole = {number: total[number] for number in total if num_seen[number] == len(names)}
    num_partial = len(total) - len(whole)
    note = f"Left out {num_partial} of {len(total)} passes that not all ranks recorded."
    return _table_of(phy2log, whole, (note,) if num_partial else (), source)


def _names_of(folder: Folder, source: str) -> list[str]:
    """Returns the file of every rank, in the order of the ranks."""
    by_rank: dict[int, str] = {}
    for name in folder.names:
        match = _FILE.fullmatch(name)
        if match is None:
            continue
        rank = int(match["rank"])
        if rank in by_rank:
            raise FormatError(
                f"Expected the files of one recording in {source}, got two of rank {rank}: "
                f"{by_rank[rank]} and {name}."
            )
        by_rank[rank] = name
    if sorted(by_rank) != list(range(len(by_rank))) or not by_rank:
        raise FormatError(
            f"Expected expert_distribution_recorder_TIME_RANK.pt of all ranks from 0 in {source}, "
            f"got ranks {sorted(by_rank)[:16]}."
        )
    return [by_rank[rank] for rank in sorted(by_rank)]


def _passes_of(
    file: TorchFile, rank: int | None, source: str
) -> tuple[NDArray[Any], dict[int, NDArray[Any]]]:
    """Returns the map [layers, slots], and the counts of the same shape by the pass's number."""
    content = file.content
    if not isinstance(content, dict) or not isinstance(content.get(_RECORDS), list):
        found = content.get(_RECORDS) if isinstance(content, dict) else content
        raise FormatError(
            f"Expected {source} to be a dict with {_RECORDS!r}, a list, got {brief(found)}."
        )
    phy2log = tensor_of(file, content.get(_MAP), source=f"{source}:{_MAP}")
    if phy2log.ndim != 2 or not phy2log.size or phy2log.dtype.kind != "i":
        raise FormatError(
            f"Expected {source}:{_MAP} of integers [layers, slots], got "
            f"{phy2log.dtype.name} {list(phy2log.shape)}."
        )
    if phy2log.min() < 0 or phy2log.max() >= phy2log.shape[1]:
        raise FormatError(
            f"Expected experts of {source}:{_MAP} in [0, {phy2log.shape[1]}), got "
            f"{phy2log.min()} to {phy2log.max()}."
        )
    _check_size(len(content[_RECORDS]), phy2log, source)
    passes: dict[int, NDArray[Any]] = {}
    for index, record in enumerate(content[_RECORDS]):
        number, counts = _counts_of(file, record, rank, f"{source}:{_RECORDS}[{index}]")
        if counts.shape != phy2log.shape:
            raise FormatError(
                f"Expected {source}:{_RECORDS}[{index}] of shape {list(phy2log.shape)} as the "
                f"map, got {list(counts.shape)}."
            )
        passes[number] = passes[number] + counts if number in passes else counts
    return phy2log, passes


def _counts_of(
    file: TorchFile, record: object, rank: int | None, source: str
) -> tuple[int, NDArray[Any]]:
    if not isinstance(record, dict) or type(record.get("forward_pass_id")) is not int:
        found = record.get("forward_pass_id") if isinstance(record, dict) else record
        raise FormatError(
            f"Expected {source} to be a dict with an integer 'forward_pass_id', got "
            f"{brief(found)}."
        )
    found_rank = record.get("rank")
    if rank is not None and (type(found_rank) is not int or found_rank != rank):
        raise FormatError(
            f"Expected {source} of rank {rank} as its name says, got {brief(found_rank)}."
        )
    counts = tensor_of(file, record.get(_COUNT), source=f"{source}:{_COUNT}")
    low, high = (counts.min(), counts.max()) if counts.size else (0, 0)
    if counts.dtype.kind != "i" or low < 0 or high >= MAX_COUNT:
        raise FormatError(
            f"Expected {source}:{_COUNT} to hold integers in [0, {MAX_COUNT}), got "
            f"{counts.dtype.name} from {low} to {high}."
        )
    return record["forward_pass_id"], counts


def _check_size(num_passes: int, phy2log: NDArray[Any], source: str) -> None:
    if num_passes * phy2log.size > MAX_ELEMENTS:
        raise FormatError(
            f"Expected {source} of at most {MAX_ELEMENTS} counts, got {num_passes} passes of "
            f"{phy2log.size}."
        )


def _table_of(
    phy2log: NDArray[Any], passes: dict[int, NDArray[Any]], notes: tuple[str, ...], source: str
) -> LoadTable:
    if not passes:
        raise FormatError(f"Expected a pass that all ranks of {source} recorded, got none.")
    counts = np.stack([passes[number] for number in sorted(passes)])
    num_passes, num_rows, _ = counts.shape
    samples = np.zeros((num_passes, num_rows, int(phy2log.max()) + 1), dtype=np.int64)
    for row, experts in enumerate(phy2log):
        order = np.argsort(experts, kind="stable")
        placed, starts = np.unique(experts[order], return_index=True)
        samples[:, row, placed] = np.add.reduceat(counts[:, row, order], starts, axis=1)
    return LoadTable(samples=samples, rows=Rows.HIDDEN, notes=notes)


def _is_it(content: TorchFile | Folder) -> bool:
    if isinstance(content, Folder):
        return any(_FILE.fullmatch(name) for name in content.names)
    return isinstance(content.content, dict) and _RECORDS in content.content


LOAD = LoadFormat(
    name="sglang-per-pass",
    description="SGLang's recorder, mode per_pass: a file, or a folder with all ranks' files",
    containers=(Container.TORCH, Container.FOLDER),
    is_it=_is_it,
    parse=_parse,
)
