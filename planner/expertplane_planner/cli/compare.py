"""`expertplane compare`: which policy does best on a recorded load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from expertplane_client.console import (
    COUNT,
    FILE,
    ProblemOptions,
    dimensions,
    errors_in_one_line,
    json_option,
    model_class_option,
    plot_option,
    print_error,
    print_json,
    print_notes,
    print_table,
    problem_options,
    require_extra,
    slots_option,
    write_picture,
)
from expertplane_client.formats import FormatError, read_placement
from expertplane_planner.errors import PlannerError

from .progress import progress


if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from expertplane_client.formats import Recording
    from expertplane_planner import Placement
    from expertplane_planner.policies import PlacementRequest

    from .comparison import Comparison


@click.command()
@problem_options
@slots_option
@click.option(
    "--policy", "policies", multiple=True, help="Algorithm to compare, repeatable; all by default."
)
@click.option(
    "--incumbent",
    "incumbent_file",
    type=FILE,
    help="Placement in force: what to compare with, and to count moved slots from.",
)
@model_class_option
@click.option(
    "--repeat",
    "num_repeats",
    type=COUNT,
    default=1,
    show_default=True,
    help="Timed solves per policy, after an untimed one; shown is their median.",
)
@json_option
@plot_option
def compare(
    options: ProblemOptions,
    num_slots: int,
    policies: tuple[str, ...],
    incumbent_file: Path | None,
    model_class: str | None,
    num_repeats: int,
    is_json: bool,
    picture: Path | None,
) -> None:
    """Compare policies on LOADFILE: balance, duplicates, moved slots and time.

    Plans are scored on the load that they were made for. Ends with exit code 1 when a policy
    fails; the others are shown all the same.
    """
    if picture is not None:
        require_extra("expertplane compare --plot", package="matplotlib", extra="plots")
    with errors_in_one_line(PlannerError):
        from .comparison_views import comparison_document, comparison_table

        if model_class is not None and incumbent_file is None:
            raise FormatError(f"Expected --incumbent with --model-class {model_class}, got none.")
        recording = options.read()
        comparison = _compare(
            options, recording, num_slots, policies, incumbent_file, model_class, num_repeats
        )
        sizes = dimensions(options, recording, num_slots=num_slots)
        if is_json:
            settings = {"seed": options.seed, "repeat": num_repeats}
            print_json({**sizes, **settings, **comparison_document(comparison)})
        else:
            print_table(comparison_table(comparison, sizes))
        if picture is not None and comparison.best is not None:
            from .comparison_picture import comparison_picture

            write_picture(picture, comparison_picture(comparison, recording, sizes))
            click.echo(f"wrote {picture}", err=is_json)
        print_notes(recording)
    for failure in comparison.failures:
        print_error(f"{failure.name}: {failure.message}")
    if comparison.failures:
        raise click.exceptions.Exit(1)


def _compare(
    options: ProblemOptions,
    recording: Recording,
    num_slots: int,
    policies: Sequence[str],
    incumbent_file: Path | None,
    model_class: str | None,
    num_repeats: int,
) -> Comparison:
    from expertplane_planner import policy_names

    from .comparison import compare_policies
    from .problem import problem_from

    problem = problem_from(options, recording, num_slots=num_slots)
    incumbent = (
        None
        if incumbent_file is None
        else _read_incumbent(incumbent_file, model_class, recording, problem)
    )
    names = tuple(dict.fromkeys(policies or policy_names()))
    with progress((1 + num_repeats) * len(names)) as announce:
        return compare_policies(
            problem, names, incumbent=incumbent, num_repeats=num_repeats, announce=announce
        )


def _read_incumbent(
    path: Path, model_class: str | None, recording: Recording, problem: PlacementRequest
) -> Placement:
    import torch

    from expertplane_planner import Placement

    found = read_placement(
        path,
        num_logical_experts=recording.num_logical_experts,
        num_ranks=problem.topology.num_ranks,
        layer_ids=recording.layer_ids,
        model_class=model_class,
    )
    expected = (recording.num_layers, problem.topology.num_slots)
    if found.phy2log.shape != expected:
        raise FormatError(
            f"Expected {path} to place {expected[0]} layers on {expected[1]} slots, "
            f"got {list(found.phy2log.shape)}."
        )
    # It may be from before a rank was lost.
    return Placement.as_held(
        torch.tensor(found.phy2log), recording.num_logical_experts, problem.topology
    )
