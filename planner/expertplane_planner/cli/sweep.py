"""`expertplane sweep`: how many redundant experts and foreign replicas a load is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from expertplane_client.console import (
    COUNT,
    ProblemOptions,
    ascending_numbers,
    dimensions,
    errors_in_one_line,
    json_option,
    plot_option,
    print_json,
    print_notes,
    print_table,
    require_extra,
    spill_problems_options,
    write_picture,
)
from expertplane_planner.errors import PlannerError

from .progress import progress
from .sweep_views import sweep_documents, sweep_table


if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from expertplane_client.formats import Recording

    from .sweeping import SweepRow


@click.command()
@spill_problems_options
@click.option(
    "--redundancy",
    "redundancies",
    metavar="LIST",
    required=True,
    callback=ascending_numbers,
    help="Redundant slots per layer to try, all ranks, such as 0,32,64.",
)
@click.option(
    "--policy",
    default="balanced",  # what is swept is scored on the load that it was planned for
    show_default=True,
    help="Algorithm that makes the plans.",
)
@click.option(
    "--bytes-per-expert",
    type=COUNT,
    help="Weights of one expert in one layer, to show memory in GB (10^9 bytes).",
)
@json_option
@plot_option
def sweep(
    problems: tuple[ProblemOptions, ...],
    redundancies: tuple[int, ...],
    policy: str,
    bytes_per_expert: int | None,
    is_json: bool,
    picture: Path | None,
) -> None:
    """Show what redundant experts and foreign replicas buy on LOADFILE, and what they cost.

    There is a row for every redundancy with every spill. Extra is what each rank holds beyond its
    share of the experts: slots of a layer, and memory for all layers. Foreign is the largest
    number of replicas of a layer that really left their group's node; spill is what may. Plans
    are scored on the load that they were made for.

    Step time is the load of the busiest rank, summed over layers, relative to the first row. Of
    it, "gain per extra" is what is saved against the next lower redundancy with the same spill,
    per extra slot; "gain per foreign" what is saved against the next lower spill with the same
    redundancy, per replica that it allows more.
    """
    if picture is not None:
        require_extra("expertplane sweep --plot", package="matplotlib", extra="plots")
    with errors_in_one_line(PlannerError):
        options = problems[0]
        recording = options.read()
        rows = _sweep(problems, recording, policy, redundancies, bytes_per_expert)
        sizes = dimensions(options, recording)
        if is_json:
            documents = sweep_documents(rows)
            print_json({**sizes, "policy": policy, "seed": options.seed, "rows": documents})
        else:
            print_table(sweep_table(rows, policy, sizes))
        if picture is not None:
            write_picture(picture, _picture(rows, policy, sizes))
            click.echo(f"wrote {picture}", err=is_json)
        print_notes(recording)


def _sweep(
    problems: Sequence[ProblemOptions],
    recording: Recording,
    policy: str,
    redundancies: Sequence[int],
    bytes_per_expert: int | None,
) -> Sequence[SweepRow]:
    from .sweeping import check_redundancies, sweep_problems

    check_redundancies(
        redundancies,
        num_logical_experts=recording.num_logical_experts,
        num_ranks=problems[0].num_ranks,
    )
    with progress(len(redundancies) * len(problems)) as announce:
        return sweep_problems(
            problems,
            recording,
            policy,
            redundancies,
            bytes_per_expert=bytes_per_expert,
            announce=announce,
        )


def _picture(rows: Sequence[SweepRow], policy: str, sizes: Mapping[str, Any]) -> bytes:
    from .spill_picture import spill_picture
    from .sweep_picture import sweep_picture

    has_spills = len({row.spill for row in rows}) > 1
    return (spill_picture if has_spills else sweep_picture)(rows, policy, sizes)
