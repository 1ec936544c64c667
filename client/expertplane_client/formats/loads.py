"""Reads and writes recordings in every engine's format. A file is trusted as far as checked."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from expertplane_client.errors import FormatError

from . import ascend, fastdeploy, lmdeploy, own, rtp_llm, sglang, sglang_per_pass, trtllm, vllm
from .containers import Container, find_container, is_folder, open_container
from .files import check_exists, write_bytes, write_folder
from .json_file import is_extra_data, keys_of
from .recording import Recording


if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from .tables import LoadFormat


_FORMATS: Mapping[str, LoadFormat] = MappingProxyType(
    {
        load_format.name: load_format
        for load_format in (
            own.LOAD,
            sglang.LOAD_JSON,
            sglang.LOAD_STAT,
            sglang_per_pass.LOAD,
            vllm.LOAD,
            trtllm.LOAD,
            ascend.LOAD,
            lmdeploy.LOAD,
            fastdeploy.LOAD,
            rtp_llm.LOAD,
        )
    }
)

INPUT_FORMATS = tuple(_FORMATS)
"""Formats that `read_load` knows."""

LOAD_OUTPUT_FORMATS = tuple(name for name, known in _FORMATS.items() if known.encode is not None)
"""Formats that `write_load` knows."""

LOAD_DESCRIPTIONS: Mapping[str, str] = MappingProxyType(
    {name: known.description for name, known in _FORMATS.items()}
)
"""A line for people about each of `INPUT_FORMATS`."""


def read_load(
    path: str | os.PathLike[str],
    layer_ids: Sequence[int] | None = None,
    *,
    input_format: str | None = None,
) -> Recording:
    """Returns the load that a file or folder holds. Nothing in it is executed.

    Args:
        path: The file, or the folder of the formats that are one.
        layer_ids: Layers to keep, ascending; None keeps all rows. A format with a row per hidden
            layer has the model's layer number for row index, and so these pick rows; a format
            that is keyed by layer number has them picked by it; and where the rows are the MoE
            layers alone, these are the layers that they are, one for each. Dense layers are
            dropped by leaving them out here and in no other way.
        input_format: One of `INPUT_FORMATS`; None tells by suffix and content.

    Raises:
        FormatError: the file cannot be read, is of no known kind, damaged, or holds something
            else than token counts.
    """
    file = Path(path)
    check_exists(file)
    known = _FORMATS.get(input_format) if input_format is not None else None
    if input_format is not None and known is None:
        raise FormatError(
            f"Expected an input format of {', '.join(INPUT_FORMATS)}, got {input_format!r}."
        )
    content, known = _open(file, known)
    source = str(file)
    table = known.parse(content, source)
    return Recording.from_rows(
        table.samples,
        layer_ids=layer_ids,
        source=source,
        rows=table.rows,
        keys=table.keys,
        notes=table.notes,
    )


def write_load(
    path: str | os.PathLike[str],
    recording: Recording,
    *,
    output_format: str | None = None,
    num_experts_per_token: int | None = None,
) -> None:
    """Writes a recording for another program to read, as a whole or not at all.

    Formats with a row per hidden layer get `recording.count_rows()` rows, zeros where no layer was
    kept; lmdeploy gets the sum of the samples; TensorRT-LLM a folder with one rank's file.

    Args:
        path: The file, replaced when it exists; or the folder, which must be new or empty.
        recording: What to write.
        output_format: One of `LOAD_OUTPUT_FORMATS`; None is `npz`, if the suffix says so.
        num_experts_per_token: Experts that a token goes to, which TensorRT-LLM's own planner wants
            to be told; None leaves it out, and other formats do not have it.

    Raises:
        FormatError: it cannot be written, or not said in this format.
    """
    file = Path(path)
    name = output_format
    if name is None and file.suffix.lower() in own.LOAD.containers[0].value:
        name = own.LOAD.name
    known = _FORMATS.get(name) if name is not None else None
    if known is None or known.encode is None:
        raise FormatError(
            f"Expected an output format of {', '.join(LOAD_OUTPUT_FORMATS)} for {file}, got "
            f"{name!r}."
        )
    content = (
        trtllm.encode_for(recording, num_experts_per_token)
        if known is trtllm.LOAD
        else known.encode(recording)
    )
    if isinstance(content, bytes):
        write_bytes(file, content)
    else:
        write_folder(file, content)


def _open(file: Path, known: LoadFormat | None) -> tuple[Any, LoadFormat]:
    if known is not None:  # what the user says counts, whatever the file is called
        is_folded = Container.FOLDER in known.containers and is_folder(file)
        container = Container.FOLDER if is_folded else known.containers[0]
        return open_container(file, container), known
    candidates = tuple(_FORMATS.values())
    used = {container for candidate in candidates for container in candidate.containers}
    container = find_container(file, [container for container in Container if container in used])
    try:
        content = open_container(file, container)
    except FormatError as error:
        if container is not Container.JSON or not is_extra_data(error):
            raise
        container = Container.JSON_LINES  # rtp-llm's end in .json all the same
        content = open_container(file, container)
        if not rtp_llm.is_history(content):
            raise
    for candidate in candidates:
        if container in candidate.containers and candidate.is_it(content):
            return content, candidate
    names = [one.name for one in candidates if container in one.containers]
    raise FormatError(
        f"Expected {file} to be of a known format ({', '.join(names)}), got "
        f"{keys_of(content) or type(content).__name__}."
    )
