"""What a recording must say about its layers before a plan for it can go to an engine's file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertplane_client.errors import FormatError

from .layer_ids import format_layer_ids
from .rows import Rows


if TYPE_CHECKING:
    from .profiles import EngineProfile
    from .recording import Recording


def check_rows(
    recording: Recording, profile: EngineProfile, num_hidden_layers: int | None
) -> None:
    """Checks that a plan for a recording can be said in an engine's rows.

    Args:
        recording: What is planned for.
        profile: The engine whose file it is for.
        num_hidden_layers: Hidden layers of the model; None takes the recording's word.

    Raises:
        FormatError: nothing says which layers the rows are, whether idle ones belong to the file,
            or how many rows the file has; says what to type.
    """
    if profile.rows is Rows.MOE:
        _refuse_idle_layers(recording, profile)
        return
    if not recording.has_layer_numbers:
        raise FormatError(
            f"Expected --layer-ids for {profile.title}, whose file has {profile.rows.value}, got "
            f"none: {recording.source} does not say which layers of the model its "
            f"{recording.num_layers} rows are. Name them all, such as --layer-ids "
            f"{format_layer_ids(range(3, 3 + recording.num_layers))}."
        )
    if profile.rows is Rows.HIDDEN and num_hidden_layers is None and recording.num_rows is None:
        raise FormatError(
            f"Expected --hidden-layers for {profile.title}, whose file has {profile.rows.value}, "
            f"got none: {recording.source} does not say how many the model has. Give their "
            f"number, such as --hidden-layers {recording.layer_ids[-1] + 1}."
        )


def _refuse_idle_layers(recording: Recording, profile: EngineProfile) -> None:
    idle = recording.idle_layers()
    may_be_dense = recording.rows in (Rows.HIDDEN, Rows.EITHER) and not recording.is_chosen
    if not idle or not may_be_dense:
        return
    busy = [layer_id for layer_id in recording.layer_ids if layer_id not in idle]
    raise FormatError(
        f"Expected --layer-ids for {profile.title}, whose file has {profile.rows.value}, got "
        f"none: {recording.source} holds no token in layers {format_layer_ids(idle)}, which look "
        f"dense. Name the MoE layers, such as --layer-ids "
        f"{format_layer_ids(busy or recording.layer_ids)}."
    )
