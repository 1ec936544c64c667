"""Reads and writes placements in every engine's format."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from expertplane_client.errors import FormatError

from . import ascend, hygon, omni, own, sglang, trtllm, vllm
from .containers import Container, find_container, open_container
from .files import check_exists, write_bytes
from .json_file import keys_of
from .layer_rules import check_rows
from .placement import PlacementMap
from .profiles import engine_profile
from .rows import Rows, choose_rows


if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from .recording import Recording
    from .tables import Model, PlacementFormat, PlacementTable


_FORMATS: Mapping[str, PlacementFormat] = MappingProxyType(
    {
        known.name: known
        for known in (
            own.PLACEMENT_NPZ,
            own.PLACEMENT_JSON,
            sglang.PLACEMENT,
            vllm.PLACEMENT,
            hygon.PLACEMENT,
            trtllm.PLACEMENT,
            ascend.PLACEMENT,
            omni.PLACEMENT,
        )
    }
)

PLACEMENT_FORMATS = tuple(_FORMATS)
"""Formats that `read_placement` and `write_placement` know."""

PLACEMENT_DESCRIPTIONS: Mapping[str, str] = MappingProxyType(
    {name: known.description for name, known in _FORMATS.items()}
)
"""A line for people about each of `PLACEMENT_FORMATS`."""


def read_placement(
    path: str | os.PathLike[str],
    *,
    num_logical_experts: int | None = None,
    num_ranks: int | None = None,
    layer_ids: Sequence[int] | None = None,
    input_format: str | None = None,
    model_class: str | None = None,
) -> PlacementMap:
    """Returns the placement that a file holds.

    Args:
        path: The file.
        num_logical_experts: Logical experts per layer. None takes the file's word, or the highest
            expert where it does not say: every expert must have a slot.
        num_ranks: Ranks; None takes the file's word, if it has any.
        layer_ids: Layers to keep, or the layers that the rows are, as for `read_load`.
        input_format: One of `PLACEMENT_FORMATS`; None tells by suffix and content.
        model_class: Which model, in HYGON's files of several, and in no other format.

    Raises:
        FormatError: the file cannot be read, is of no known kind or damaged, says something else
            than the arguments, or the engine would refuse it.
    """
    file = Path(path)
    source = str(file)
    check_exists(file)
    if input_format is None:
        container = find_container(file, [known.container for known in _FORMATS.values()])
        content = open_container(file, container)
        known = _detect(content, container, source)
    else:
        known = _format_of(input_format)
        content = open_container(file, known.container)
    if model_class is not None and known is not hygon.PLACEMENT:
        raise FormatError(
            f"Expected --model-class only with the format {hygon.PLACEMENT.name}, got "
            f"{model_class!r} with {source} of format {known.name}."
        )
    if known is hygon.PLACEMENT:
        table = hygon.parse_for(content, source, model_class)
    else:
        table = known.parse(content, source)
    placement = _placement_of(
        table,
        num_logical_experts=_agreed(
            "logical experts", num_logical_experts, table.num_logical_experts, source
        ),
        num_ranks=_agreed("ranks", num_ranks, table.num_ranks, source),
        layer_ids=layer_ids,
        source=source,
    )
    if known.profile is not None:
        known.profile.check(placement)
    return placement


def write_placement(
    path: str | os.PathLike[str],
    placement: PlacementMap,
    *,
    output_format: str | None = None,
    model: Model | None = None,
) -> None:
    """Writes a placement for an engine to read, as a whole or not at all.

    Args:
        path: The file; replaced when it exists.
        placement: What to write.
        output_format: One of `PLACEMENT_FORMATS`, such as an `EngineProfile` has; None tells by
            the suffix where only one format has it.
        model: The model's names, for HYGON's format, which cannot do without.

    Raises:
        FormatError: the suffix does not tell or is another format's, the engine would refuse the
            placement, the model is missing, or the file cannot be written.
    """
    file = Path(path)
    known = _format_to_write(file, output_format)
    if known.profile is not None:
        known.profile.check(placement)
    if known is hygon.PLACEMENT:
        content = hygon.encode_for(placement, model)
    else:
        content = known.encode(placement)
    write_bytes(file, content)


def check_placement_path(
    path: str | os.PathLike[str],
    *,
    output_format: str | None = None,
    num_hidden_layers: int | None = None,
    model_class: str | None = None,
) -> None:
    """Checks, before there is a placement, that `write_placement` would take a path and settings.

    Args:
        path: The file; whether it can be written is not tried.
        output_format: As for `write_placement`.
        num_hidden_layers: Hidden layers of the model, for the formats that hold them.
        model_class: Class of the model, for HYGON's format.

    Raises:
        FormatError: the suffix does not tell or is another format's, or a setting is missing, or
            would do nothing.
    """
    known = _format_to_write(Path(path), output_format)
    if known is hygon.PLACEMENT and not model_class:
        raise FormatError(
            f"Expected --model-class with the format {known.name}, such as --model-class "
            f"DeepseekV3ForCausalLM, got none: the engine looks the map up by it."
        )
    if known is not hygon.PLACEMENT and model_class is not None:
        raise FormatError(
            f"Expected --model-class only with the format {hygon.PLACEMENT.name}, got "
            f"{model_class!r} with {known.name}."
        )
    with_rows = (sglang.PLACEMENT, own.PLACEMENT_JSON)
    if num_hidden_layers is not None and known not in with_rows:
        names = " and ".join(one.name for one in with_rows)
        raise FormatError(
            f"Expected --hidden-layers only with the formats {names}, got {num_hidden_layers} "
            f"with {known.name}."
        )


def check_layers(
    recording: Recording,
    *,
    path: str | os.PathLike[str] | None = None,
    output_format: str | None = None,
    engine: str | None = None,
    num_hidden_layers: int | None = None,
) -> None:
    """Checks, before there is a placement, that the layers to plan for can be written.

    Files count layers in different ways, and a placement under the wrong layers is one that an
    engine takes without a word. So where a recording does not say enough for the file that is to
    be written, the caller has to; Expertplane's own formats take every recording.

    Args:
        recording: What is planned for.
        path: The file; None writes none.
        output_format: As for `write_placement`.
        engine: One of `ENGINES`, whose rules the placement must satisfy too; None is no engine.
        num_hidden_layers: Hidden layers of the model; None takes the recording's word.

    Raises:
        FormatError: the layers, or their number, are not known; says what to type.
    """
    profiles = [] if engine is None else [engine_profile(engine)]
    if path is not None:
        written = _format_to_write(Path(path), output_format).profile
        profiles += [] if written is None else [written]
    for profile in profiles:
        check_rows(recording, profile, num_hidden_layers)
    if num_hidden_layers is not None and num_hidden_layers <= recording.layer_ids[-1]:
        raise FormatError(
            f"Expected --hidden-layers above {recording.layer_ids[-1]}, the highest layer of "
            f"{recording.source}, got {num_hidden_layers}."
        )


def _format_to_write(file: Path, output_format: str | None) -> PlacementFormat:
    known = _format_for(file) if output_format is None else _format_of(output_format)
    if file.suffix.lower() not in known.container.value:
        raise FormatError(
            f"Expected a name that ends in {' or '.join(known.container.value)} for the format "
            f"{known.name}, got {str(file)!r}."
        )
    return known


def _format_of(name: str) -> PlacementFormat:
    known = _FORMATS.get(name)
    if known is None:
        raise FormatError(
            f"Expected a format of placements of {', '.join(PLACEMENT_FORMATS)}, got {name!r}."
        )
    return known


def _format_for(file: Path) -> PlacementFormat:
    container = find_container(file, [known.container for known in _FORMATS.values()])
    fitting = [known for known in _FORMATS.values() if known.container is container]
    if len(fitting) != 1:
        names = ", ".join(known.name for known in fitting)
        raise FormatError(
            f"Expected to be told which format {str(file)!r} shall have, such as --output-format "
            f"{fitting[0].name}, got none of: {names}."
        )
    return fitting[0]


def _detect(content: object, container: Container, source: str) -> PlacementFormat:
    fitting = [known for known in _FORMATS.values() if known.container is container]
    for known in fitting:
        if known.is_it(content):
            return known
    names = ", ".join(known.name for known in fitting)
    raise FormatError(
        f"Expected {source} to be of a known format ({names}), got "
        f"{keys_of(content) or type(content).__name__}."
    )


def _agreed(what: str, wanted: int | None, said: int | None, source: str) -> int | None:
    if wanted is not None and said is not None and wanted != said:
        raise FormatError(f"Expected {wanted} {what} in {source}, got {said}.")
    return said if wanted is None else wanted


def _placement_of(
    table: PlacementTable,
    *,
    num_logical_experts: int | None,
    num_ranks: int | None,
    layer_ids: Sequence[int] | None,
    source: str,
) -> PlacementMap:
    phy2log = table.phy2log
    if phy2log.ndim != 2 or not phy2log.size:
        raise FormatError(f"Expected {source} of [layers, slots], got {list(phy2log.shape)}.")
    choice = choose_rows(table.rows, len(phy2log), layer_ids, keys=table.keys, source=source)
    kept = phy2log[list(choice.indices)]
    return PlacementMap(
        phy2log=kept,
        num_logical_experts=(
            int(kept.max()) + 1 if num_logical_experts is None else num_logical_experts
        ),
        num_ranks=num_ranks,
        layer_ids=choice.layer_ids,
        num_rows=table.num_rows if table.rows is Rows.KEYED else choice.num_rows,
        source=source,
    )
