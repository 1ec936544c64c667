"""What the engines' modules hand out: formats, and what they find before layers are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from .containers import Container
    from .placement import PlacementMap
    from .profiles import EngineProfile
    from .recording import Recording
    from .rows import Rows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadTable:
    """Load as it lies in a file."""

    samples: NDArray[Any]
    """[num_rows, num_logical_experts] or with the samples before it, tokens."""

    rows: Rows
    """What the rows are."""

    keys: tuple[int, ...] = ()
    """For `Rows.KEYED`, the layer of every row, ascending."""

    notes: tuple[str, ...] = ()
    """What had to be left out, a sentence each."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacementTable:
    """A placement as it lies in a file."""

    phy2log: NDArray[Any]
    """[num_rows, num_slots]."""

    rows: Rows
    """What the rows are."""

    keys: tuple[int, ...] = ()
    """For `Rows.KEYED`, the layer of every row, ascending."""

    num_logical_experts: int | None = None
    """Logical experts, where the file says."""

    num_ranks: int | None = None
    """Ranks, where the file says."""

    num_rows: int | None = None
    """Hidden layers of the model, where the file says so in so many words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model's names, for the one format that wants them."""

    class_name: str
    """Class of the model in the engine; HYGON's vLLM looks its map up by it."""

    name: str | None = None
    """As it is served, such as a path; None takes the class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadFormat:
    """A format of recordings."""

    name: str
    """As on the command line."""

    description: str
    """One line for people."""

    containers: tuple[Container, ...]
    """Kinds of files that it comes in."""

    is_it: Callable[[Any], bool]
    """Whether the content of such a file is of this format and no other; never raises."""

    parse: Callable[[Any, str], LoadTable]
    """Takes the content and its source."""

    encode: Callable[[Recording], bytes | Mapping[str, bytes]] | None = None
    """Returns the file, or the files of a folder by name; None for formats that are only read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementFormat:
    """A format of placements."""

    name: str
    """As on the command line."""

    description: str
    """One line for people."""

    container: Container
    """Kind of file that it is."""

    is_it: Callable[[Any], bool]
    """Whether the content of such a file is of this format and no other; never raises."""

    parse: Callable[[Any, str], PlacementTable]
    """Takes the content and its source."""

    encode: Callable[[PlacementMap], bytes]
    """Returns the file."""

    profile: EngineProfile | None = None
    """Rules of the engine that reads it."""
