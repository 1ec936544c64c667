"""Where a plan starts, how far it may go, what its policy is told. Needs click and rich."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from expertplane_client.errors import FormatError, InputError
from expertplane_client.formats import read_placement

from .options import FILE
from .output import errors_in_one_line


if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from expertplane_client.formats import Recording

    from .problems import LoadOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveOptions:
    """The placement in force, the move budget against it, and parameters of the policy.

    Raises:
        InputError: a budget without a placement that it is counted from.
    """

    incumbent: Path | None
    """File of the placement in force; None starts from nothing."""

    max_moved_slots_per_layer: int | None
    """Slots of each layer whose rank may have to fetch an expert; None sets no limit."""

    parameters: Mapping[str, str]
    """Parameters of the policy by name, values as in TOML."""

    def __post_init__(self) -> None:
        if self.max_moved_slots_per_layer is not None and self.incumbent is None:
            raise InputError("Expected --incumbent with --move-budget, got none.")

    def read_incumbent(self, options: LoadOptions, recording: Recording) -> NDArray[Any] | None:
        """Returns the placement in force for a problem.

        Args:
            options: The machine.
            recording: The load, whose layers and experts are placed.

        Returns:
            [num_layers, num_slots] integers, or None when there is no such file.

        Raises:
            FormatError: the file cannot be read, or is about another problem.
        """
        if self.incumbent is None:
            return None
        found = read_placement(
            self.incumbent,
            num_logical_experts=recording.num_logical_experts,
            num_ranks=options.num_ranks,
            layer_ids=recording.layer_ids,
        )
        expected = (recording.num_layers, options.num_slots)
        if found.phy2log.shape != expected:
            raise FormatError(
                f"Expected {self.incumbent} to place {expected[0]} layers on {expected[1]} slots, "
                f"got {list(found.phy2log.shape)}."
            )
        return found.phy2log


def move_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--incumbent`, `--move-budget` and `--parameter`, passed on as `moves`."""

    @functools.wraps(command)
    def gathered(
        *arguments: Any,
        incumbent: Path | None,
        move_budget: int | None,
        parameters: Mapping[str, str],
        **values: Any,
    ) -> Any:
        with errors_in_one_line():
            moves = MoveOptions(
                incumbent=incumbent,
                max_moved_slots_per_layer=move_budget,
                parameters=parameters,
            )
        return command(*arguments, moves=moves, **values)

    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return gathered


def _parameters(
    context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name or not value:
            raise click.BadParameter(f"Expected NAME=VALUE, got '{text}'.", context, parameter)
        if name in found:
            raise click.BadParameter(f"Expected {name} once, got it twice.", context, parameter)
        found[name] = value
    return found


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--incumbent",
        type=FILE,
        help="Placement in force: the plan starts there and moves what pays.",
    ),
    click.option(
        "--move-budget",
        type=click.IntRange(min=0, max=65536),
        help="Slots of each layer that may get another expert, at most; no limit by default.",
    ),
    click.option(
        "--parameter",
        "parameters",
        metavar="NAME=VALUE",
        multiple=True,
        callback=_parameters,
        help="Parameter of the policy, written as in TOML; repeatable.",
    ),
)
