"""What the shared options are gathered into, checked as a whole. Needs click and rich."""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from expertplane_client.errors import FormatError, InputError
from expertplane_client.formats import (
    check_layers,
    check_placement_path,
    engine_profile,
    read_load,
)

from .options import (
    ANSWER_OPTIONS,
    GROUP_OPTIONS,
    MACHINE_OPTIONS,
    SOFT_MODE,
    SOLVE_OPTIONS,
    policy_option,
    slots_option,
    spill_option,
    spills_option,
)
from .output import errors_in_one_line


if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from expertplane_client.formats import Recording


MAX_SAMPLES = 256
"""What a planner takes, here and behind gRPC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemOptions:
    """What to plan for, and for which machine; how many slots it has is said elsewhere.

    Raises:
        InputError: a spill without the mode and the nodes that it is for, or the mode without it.
    """

    loadfile: Path
    """Recording to plan for, a file or a folder."""

    input_format: str | None
    """One of `INPUT_FORMATS`; None finds out."""

    layer_ids: tuple[int, ...] | None
    """Rows of the recording to keep; None keeps all."""

    num_ranks: int
    """Expert-parallel ranks."""

    num_nodes: int
    """Domains of fast links."""

    masked_ranks: tuple[int, ...] | None
    """Ranks that are lost, ascending; None where all are there."""

    rank_capacities: tuple[float, ...] | None
    """What each rank gets done in the same time; None for ranks that are equal."""

    num_expert_groups: int
    """Routing groups of consecutive logical experts."""

    mode: str
    """One of `MODES`."""

    spill: int | None
    """Replicas per layer that may leave their expert group's node; None outside `SOFT_MODE`."""

    seed: int
    """Seed for policies that draw random numbers."""

    def __post_init__(self) -> None:
        is_soft = self.mode == SOFT_MODE
        if is_soft and self.spill is None:
            raise InputError(f"Expected --spill with --mode {SOFT_MODE}, got none.")
        if self.spill is not None and not is_soft:
            raise InputError(f"Expected --spill only with --mode {SOFT_MODE}, got '{self.mode}'.")
        if self.spill and self.num_nodes == 1:
            raise InputError(
                "Expected --nodes of at least 2 with --spill, got 1: there is no other node to "
                "spill to."
            )

    def read(self) -> Recording:
        """Returns the recording, as many neighbouring samples summed as a planner asks for.

        Raises:
            FormatError: it cannot be read.
        """
        recording = read_load(self.loadfile, self.layer_ids, input_format=self.input_format)
        return recording.at_most(MAX_SAMPLES)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions(ProblemOptions):
    """A problem, how to solve it, and where the answer goes.

    Raises:
        InputError: as for a problem, an output format without an output, or a report that is the
            output.
        FormatError: an output or a report whose name is not one of its format, or whose folder
            does not exist.
    """

    num_slots: int
    """Slots per layer over all ranks."""

    policy: str
    """Name of the algorithm; empty for the planner's default."""

    engine: str | None
    """One of `ENGINES`, whose rules the plan must satisfy; None checks nothing more."""

    output: Path | None
    """Where the placement goes; None writes none."""

    output_format: str | None
    """One of `PLACEMENT_FORMATS`; None takes the engine's, or what the name of the file says."""

    num_hidden_layers: int | None
    """Hidden layers of the model; None takes the recording's word."""

    model_class: str | None
    """Class of the model, for HYGON's format; None where no format asks for it."""

    report: Path | None
    """Where the report goes; None writes none."""

    def __post_init__(self) -> None:
        # No super() without arguments: slots make a class of their own.
        ProblemOptions.__post_init__(self)
        if self.output_format is not None and self.output is None:
            raise InputError("Expected --output with --output-format, got none.")
        if self.model_class is not None and self.output is None:
            raise InputError("Expected --output with --model-class, got none.")
        if self.num_hidden_layers is not None and self.output is None and self.engine is None:
            raise InputError("Expected --output or --engine with --hidden-layers, got neither.")
        # Now, and not after a solve that nothing, or only the half, is left of.
        if self.output is not None:
            check_placement_path(
                self.output,
                output_format=self.written_format,
                num_hidden_layers=self.num_hidden_layers,
                model_class=self.model_class,
            )
            _check_folder("--output", self.output)
        if self.report is not None:
            if self.report.suffix.lower() != ".json":
                raise FormatError(
                    f"Expected --report with a name that ends in .json, got '{self.report}'."
                )
            _check_folder("--report", self.report)
        if self.output and self.report and self.output.resolve() == self.report.resolve():
            raise InputError(
                f"Expected --report and --output to be two files, got '{self.report}' for both."
            )

    @property
    def written_format(self) -> str | None:
        """What the placement is written as; None goes by the name of the file."""
        if self.output_format is None and self.engine is not None:
            return engine_profile(self.engine).output_format
        return self.output_format

    def read(self) -> Recording:
        """Returns the recording, see `ProblemOptions.read`.

        Raises:
            FormatError: it cannot be read, or does not say enough about its layers for the file
                that is to be written.
        """
        recording = ProblemOptions.read(self)
        check_layers(
            recording,
            path=self.output,
            output_format=self.written_format,
            engine=self.engine,
            num_hidden_layers=self.num_hidden_layers,
        )
        return recording


def _check_folder(option: str, file: Path) -> None:
    if not file.parent.is_dir():
        raise FormatError(f"Expected {option} in a folder that exists, got '{file}'.")


def problem_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds LOADFILE and the options of a problem, passed on as one `ProblemOptions`."""
    return _with_options(
        (*MACHINE_OPTIONS, *GROUP_OPTIONS, spill_option, *SOLVE_OPTIONS),
        _gathered(command, ProblemOptions),
    )


def spill_problems_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds what `problem_options` adds, but `--spill` takes several numbers.

    Passed on is a tuple of `ProblemOptions`, one per spill and otherwise the same; of one where
    there is no spill.
    """

    @functools.wraps(command)
    def gathered(spill: tuple[int, ...] | None, **values: Any) -> Any:
        with errors_in_one_line():
            common = _taken(values, ProblemOptions, but="spill")
            problems = tuple(ProblemOptions(spill=number, **common) for number in spill or (None,))
        return command(problems, **values)

    return _with_options(
        (*MACHINE_OPTIONS, *GROUP_OPTIONS, spills_option, *SOLVE_OPTIONS), gathered
    )


def load_options(*, policy: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Returns what adds LOADFILE and the options of planning, passed on as one `LoadOptions`.

    Args:
        policy: The default of `--policy`; empty leaves the choice to the planner that is asked.
    """
    options = (
        *MACHINE_OPTIONS,
        slots_option,
        *GROUP_OPTIONS,
        spill_option,
        *SOLVE_OPTIONS,
        policy_option(policy),
        *ANSWER_OPTIONS,
    )
    return lambda command: _with_options(options, _gathered(command, LoadOptions))


def _gathered(
    command: Callable[..., Any], options_class: type[ProblemOptions]
) -> Callable[..., Any]:
    @functools.wraps(command)
    def gathered(**values: Any) -> Any:
        with errors_in_one_line():
            options = options_class(**_taken(values, options_class))
        return command(options, **values)

    return gathered


def _taken(
    values: dict[str, Any], options_class: type[ProblemOptions], *, but: str = ""
) -> dict[str, Any]:
    """Returns the values of a class's fields, and takes them away from the others."""
    return {
        field.name: values.pop(field.name) for field in fields(options_class) if field.name != but
    }


def _with_options(
    options: tuple[Callable[[Any], Any], ...], command: Callable[..., Any]
) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command
