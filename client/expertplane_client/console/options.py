"""The options that commands share. Needs click."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from expertplane_client.channel import check_address
from expertplane_client.errors import FormatError, InputError
from expertplane_client.formats import (
    ENGINES,
    INPUT_FORMATS,
    PLACEMENT_FORMATS,
    parse_layer_ids,
)


if TYPE_CHECKING:
    from collections.abc import Callable


SOFT_MODE = "soft-hierarchical"
MODES = ("auto", "hierarchical", "global", SOFT_MODE)
DEFAULT_ADDRESS = "127.0.0.1:50051"

_Command = TypeVar("_Command", bound="Callable[..., Any]")


def ascending_numbers(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> tuple[int, ...] | None:
    """Converts an option's list such as 0,32,64; a callback, which may end in a usage error."""
    if text is None:
        return None
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    is_ascending = all(a < b for a, b in zip(numbers, numbers[1:], strict=False))
    if not numbers or numbers[0] < 0 or not is_ascending:
        raise click.BadParameter(
            f"Expected ascending numbers such as '0,32,64', got '{text}'.", context, parameter
        )
    return numbers


def _capacities(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise click.BadParameter(
            f"Expected numbers such as '1,1,0.5,1', got '{text}'.", context, parameter
        ) from error


def address_option(command: _Command) -> _Command:
    """Adds `--address`, which EXPERTPLANE_ADDRESS sets for all commands."""
    return click.option(
        "--address",
        default=DEFAULT_ADDRESS,
        envvar="EXPERTPLANE_ADDRESS",
        show_default=True,
        show_envvar=True,
        callback=_address,
        help="Planner to ask, host:port.",
    )(command)


def json_option(command: _Command) -> _Command:
    """Adds `--json`, passed on as `is_json`."""
    return click.option("--json", "is_json", is_flag=True, help="Print JSON.")(command)


def plot_option(command: _Command) -> _Command:
    """Adds `--plot`, passed on as `picture`."""
    return click.option(
        "--plot",
        "picture",
        type=FILE,
        callback=_picture,
        help="Where a picture goes (.png); needs matplotlib.",
    )(command)


def slots_option(command: _Command) -> _Command:
    """Adds `--slots`, passed on as `num_slots`."""
    return click.option(
        "--slots", "num_slots", type=COUNT, required=True, help="Slots per layer, all ranks."
    )(command)


def rank_options(command: _Command) -> _Command:
    """Adds `--ranks` and `--nodes`, passed on as `num_ranks` and `num_nodes`."""
    return _with(command, _RANK_OPTIONS)


def group_options(command: _Command) -> _Command:
    """Adds `--expert-groups` and `--mode`, passed on as `num_expert_groups` and `mode`."""
    return _with(command, GROUP_OPTIONS)


def _with(command: _Command, options: tuple[Callable[[Any], Any], ...]) -> _Command:
    for option in reversed(options):
        command = option(command)
    return command


def model_class_option(command: _Command) -> _Command:
    """Adds `--model-class`, passed on as `model_class`."""
    return click.option(
        "--model-class",
        metavar="NAME",
        help="Class of the model, such as Qwen3MoeForCausalLM, by which HYGON's vLLM looks its "
        "map up.",
    )(command)


def policy_option(default: str) -> Callable[[_Command], _Command]:
    """Returns what adds `--policy`; an empty default leaves the choice to the planner."""
    chosen = "" if default else "; the planner's default if empty"
    return click.option(
        "--policy",
        default=default,
        show_default=bool(default),
        help=f"Algorithm that makes the plan{chosen}.",
    )


def _address(context: click.Context, parameter: click.Parameter, address: str) -> str:
    try:
        return check_address(address)
    except InputError as error:
        raise click.BadParameter(str(error), context, parameter) from error


def _layer_ids(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> tuple[int, ...] | None:
    try:
        return None if text is None else parse_layer_ids(text)
    except FormatError as error:
        raise click.BadParameter(str(error), context, parameter) from error


def _picture(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    if path is not None and path.suffix.lower() != ".png":
        raise click.BadParameter(f"Expected a .png file, got '{path}'.", context, parameter)
    return path


FILE = click.Path(dir_okay=False, path_type=Path)
COUNT = click.IntRange(min=1)

_RANK_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--ranks", "num_ranks", type=COUNT, required=True, help="Expert-parallel ranks."),
    click.option(
        "--nodes",
        "num_nodes",
        type=COUNT,
        default=1,
        show_default=True,
        help="Domains of fast links.",
    ),
)
MACHINE_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.argument("loadfile", type=click.Path(path_type=Path)),
    *_RANK_OPTIONS,
    click.option(
        "--masked-ranks",
        metavar="LIST",
        callback=ascending_numbers,
        help="Ranks that are lost, such as 3,17: their slots stay empty.",
    ),
    click.option(
        "--rank-capacities",
        metavar="LIST",
        callback=_capacities,
        help="What each rank gets done in the same time, such as 1,1,0.5,1; all the same by "
        "default.",
    ),
)
GROUP_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--expert-groups",
        "num_expert_groups",
        type=COUNT,
        default=1,
        show_default=True,
        help="Routing groups of consecutive experts.",
    ),
    click.option(
        "--mode",
        type=click.Choice(MODES),
        default="auto",
        show_default=True,
        help="Keep expert groups on their node (hierarchical), all but some replicas "
        "(soft-hierarchical), or not (global).",
    ),
)
spill_option = click.option(
    "--spill",
    type=click.IntRange(min=0),
    help="Replicas per layer that may leave their group's node in soft-hierarchical mode.",
)
spills_option = click.option(
    "--spill",
    metavar="LIST",
    callback=ascending_numbers,
    help="Replicas per layer that may leave their group's node in soft-hierarchical mode: one "
    "number, or several to try, such as 0,2,4,8.",
)
SOLVE_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--seed",
        type=click.IntRange(min=0, max=2**63 - 1),
        default=0,
        show_default=True,
        help="Seed for policies that draw random numbers.",
    ),
    click.option(
        "--layer-ids",
        metavar="LIST",
        callback=_layer_ids,
        help="Rows to keep, such as 3-60,62; all by default.",
    ),
    click.option(
        "--input-format",
        type=click.Choice(INPUT_FORMATS),
        help="What LOADFILE, a file or a folder, is; found out by default.",
    ),
)
ANSWER_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--engine",
        type=click.Choice(ENGINES),
        help="Refuse a plan that this engine would not take, and write its format.",
    ),
    click.option("--output", type=FILE, help="Where the placement goes."),
    click.option(
        "--output-format",
        type=click.Choice(PLACEMENT_FORMATS),
        help="What is written; the engine's own, or by the name of the file, by default.",
    ),
    click.option(
        "--hidden-layers",
        "num_hidden_layers",
        type=COUNT,
        help="Hidden layers of the model, a row each in SGLang's file; as LOADFILE says by "
        "default.",
    ),
    model_class_option,
    click.option("--report", type=FILE, help="Where the report goes (.json)."),
)
