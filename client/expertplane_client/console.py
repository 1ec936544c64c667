"""What the commands share: options, errors in one line, tables. Needs click and rich."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from .balance import Balance, balance, initial_phy2log
from .channel import check_address
from .errors import ExpertplaneError, FormatError, InputError
from .formats import parse_layer_ids, write_plan_npz, write_report


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from .formats import Recording


MODES = ("auto", "hierarchical", "global")
DEFAULT_ADDRESS = "127.0.0.1:50051"

_WIDTH_WITHOUT_TERMINAL = 240

_Command = TypeVar("_Command", bound="Callable[..., Any]")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """What to plan, for which machine, and where the answer goes."""

    loadfile: Path
    """Recording to plan for."""

    layer_ids: tuple[int, ...] | None
    """Rows of the recording to keep; None keeps all."""

    num_ranks: int
    """Expert-parallel ranks."""

    num_nodes: int
    """Domains of fast links."""

    num_slots: int
    """Slots per layer over all ranks."""

    num_expert_groups: int
    """Routing groups of consecutive logical experts."""

    mode: str
    """One of `MODES`."""

    policy: str
    """Name of the algorithm."""

    seed: int
    """Seed for policies that draw random numbers."""

    output: Path | None
    """Where the three maps go; None writes none."""

    report: Path | None
    """Where the report goes; None writes none."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SolvedPlan:
    """A plan as the commands show and write it, wherever it was made."""

    phy2log: NDArray[np.integer[Any]]
    """[num_layers, num_slots], the logical expert of every slot."""

    log2phy: NDArray[np.integer[Any]]
    """[num_layers, num_logical_experts, X], its slots, padded with -1."""

    logcnt: NDArray[np.integer[Any]]
    """[num_layers, num_logical_experts], the number of its replicas."""

    policy: str
    """The algorithm that made it."""

    parameters: Mapping[str, Any]
    """Its parameters by name."""

    mode: str
    """The mode that was really used."""

    seed: int
    """Seed given to the policy."""

    balancedness: float
    """Sum over layers of mean rank load over the sum of maxima, under the recording."""

    per_layer: tuple[float, ...]
    """Mean over maximum rank load of each layer, under the recording."""

    solve_s: float
    """Time that the solver took, in seconds."""

    digest: str
    """Lowercase hex sha256 of phy2log."""

    version: int | None = None
    """Number of the plan; None when nothing is stored."""


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


def load_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds LOADFILE and the options of planning, passed on as one `LoadOptions`."""

    @functools.wraps(command)
    def gathered(**values: Any) -> Any:
        names = LoadOptions.__dataclass_fields__
        options = LoadOptions(**{name: values.pop(name) for name in names})
        return command(options, **values)

    result: Callable[..., Any] = gathered
    for option in reversed(_LOAD_OPTIONS):
        result = option(result)
    return result


@contextlib.contextmanager
def errors_in_one_line(*more: type[Exception]) -> Iterator[None]:
    """Ends the command with exit code 1 and a red line on stderr where the client raises.

    Args:
        more: Further errors that users are told about in this way.
    """
    kinds: tuple[type[Exception], ...] = (ExpertplaneError, *more)
    try:
        yield
    except kinds as error:
        sentence = " ".join(str(error).split())
        click.secho(f"Error: {sentence}", fg="red", err=True)
        raise click.exceptions.Exit(1) from error


def deliver(options: LoadOptions, recording: Recording, solved: SolvedPlan) -> None:
    """Writes what was asked for and prints a summary.

    Args:
        options: What the user said.
        recording: What was planned for.
        solved: The plan.

    Raises:
        FormatError: an output cannot be written.
    """
    start = initial_phy2log(recording.num_layers, recording.num_logical_experts, options.num_slots)
    before = balance(recording.weight(), start, options.num_ranks)
    if options.output is not None:
        write_plan_npz(options.output, solved.phy2log, solved.log2phy, solved.logcnt)
    if options.report is not None:
        write_report(options.report, _report(options, recording, solved, before))
    _print_summary(options, recording, solved, before)


def require_packages(*names: str) -> None:
    """Checks, without importing them, that packages are installed.

    Raises:
        ModuleNotFoundError: one is not; the program then says which extra brings it.
    """
    for name in names:
        try:
            is_there = importlib.util.find_spec(name) is not None
        except ModuleNotFoundError:  # the parent of a dotted name
            is_there = False
        if not is_there:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def print_table(table: Table) -> None:
    """Prints a table as wide as the terminal, or as it needs to be where there is none."""
    console = Console()
    # A file or a pipe has no width of its own; what is cut at 80 columns would be lost.
    wide = console if console.is_terminal else Console(width=_WIDTH_WITHOUT_TERMINAL)
    wide.print(table)


def _report(
    options: LoadOptions, recording: Recording, solved: SolvedPlan, before: Balance
) -> Mapping[str, Any]:
    return {
        "policy": solved.policy,
        "parameters": dict(solved.parameters),
        "mode": solved.mode,
        "seed": solved.seed,
        "balancedness": solved.balancedness,
        "per_layer": list(solved.per_layer),
        "balancedness_before": before.balancedness,
        "seconds": solved.solve_s,
        "version": solved.version,
        "sha256": solved.digest,
        "num_samples": recording.num_samples,
        "num_layers": recording.num_layers,
        "num_logical_experts": recording.num_logical_experts,
        "num_expert_groups": options.num_expert_groups,
        "num_nodes": options.num_nodes,
        "num_ranks": options.num_ranks,
        "num_slots": options.num_slots,
        "layer_ids": list(recording.layer_ids),
    }


def _print_summary(
    options: LoadOptions, recording: Recording, solved: SolvedPlan, before: Balance
) -> None:
    table = Table(title=f"{solved.policy}, {solved.mode}", title_justify="left")
    table.add_column("balancedness")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    after = Balance(balancedness=solved.balancedness, per_layer=solved.per_layer)
    for name, old, new in (
        ("overall", before.balancedness, after.balancedness),
        ("mean of layers", before.mean, after.mean),
        ("worst layer", before.minimum, after.minimum),
    ):
        table.add_row(name, f"{old:.4f}", f"{new:.4f}")
    print_table(table)
    click.echo(
        f"{recording.num_layers} layers x {recording.num_logical_experts} experts -> "
        f"{options.num_slots} slots on {options.num_ranks} ranks "
        f"in {solved.solve_s:.3f} s, sha256 {solved.digest[:12]}"
    )
    for path in (options.output, options.report):
        if path is not None:
            click.echo(f"wrote {path}")


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


_FILE = click.Path(dir_okay=False, path_type=Path)
_COUNT = click.IntRange(min=1)
_LOAD_OPTIONS = (
    click.argument("loadfile", type=_FILE),
    click.option(
        "--ranks", "num_ranks", type=_COUNT, required=True, help="Expert-parallel ranks."
    ),
    click.option(
        "--nodes",
        "num_nodes",
        type=_COUNT,
        default=1,
        show_default=True,
        help="Domains of fast links.",
    ),
    click.option(
        "--slots", "num_slots", type=_COUNT, required=True, help="Slots per layer, all ranks."
    ),
    click.option(
        "--expert-groups",
        "num_expert_groups",
        type=_COUNT,
        default=1,
        show_default=True,
        help="Routing groups of consecutive experts.",
    ),
    click.option(
        "--mode",
        type=click.Choice(MODES),
        default="auto",
        show_default=True,
        help="Keep expert groups on their node (hierarchical) or not (global).",
    ),
    click.option(
        "--policy", default="deepseek", show_default=True, help="Algorithm that makes the plan."
    ),
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
    click.option("--output", type=_FILE, help="Where the maps go (.npz)."),
    click.option("--report", type=_FILE, help="Where the report goes (.json)."),
)
