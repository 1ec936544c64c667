"""A plan as the commands show and write it, wherever it was made. Needs click and rich."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from rich.markup import escape
from rich.table import Table

from expertplane_client.balance import Balance, balance, initial_phy2log
from expertplane_client.formats import (
    Model,
    PlacementMap,
    engine_profile,
    write_placement,
    write_report,
)

from .output import print_notes, print_table


if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from expertplane_client.formats import Recording

    from .problems import LoadOptions, ProblemOptions


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SolvedPlan:
    """A plan, with what is told about it."""

    phy2log: NDArray[np.integer[Any]]
    """[num_layers, num_slots], the logical expert of every slot, -1 in masked ones."""

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

    foreign_replicas: tuple[int, ...] | None = None
    """Replicas of each layer away from their expert group's node; None outside soft mode."""

    version: int | None = None
    """Number of the plan; None when nothing is stored."""

    incumbent: NDArray[np.integer[Any]] | None = None
    """[num_layers, num_slots], the placement that the plan starts from; None if there was none."""

    moved_slots: int | None = None
    """Slots over all layers whose rank has to fetch an expert; None without an incumbent."""

    benefit: Mapping[str, Any] | None = None
    """Gain and cost against the incumbent by name, for the report; None where not told."""

    transfers: Mapping[str, list[int]] | None = None
    """The copies that lead there, a list for each column, for the report; None like `benefit`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """What the plan is compared with."""

    balance: Balance
    num_duplicates: int


def deliver(options: LoadOptions, recording: Recording, solved: SolvedPlan) -> None:
    """Writes what was asked for and prints a summary.

    Args:
        options: What the user said.
        recording: What was planned for.
        solved: The plan.

    Raises:
        FormatError: the engine would not take the plan, or an output cannot be written.
    """
    placement = PlacementMap(
        phy2log=solved.phy2log.astype(np.int64),
        num_logical_experts=recording.num_logical_experts,
        num_ranks=options.num_ranks,
        layer_ids=recording.layer_ids,
        num_rows=(
            recording.num_rows if options.num_hidden_layers is None else options.num_hidden_layers
        ),
        source=f"the plan of {solved.policy}",
    )
    if options.engine is not None:
        engine_profile(options.engine).check(placement)
    start = _start(options, recording, solved.incumbent)
    if options.output is not None:
        write_placement(
            options.output,
            placement,
            output_format=options.written_format,
            model=(None if options.model_class is None else Model(class_name=options.model_class)),
        )
        click.echo(f"wrote {options.output}")
    if options.report is not None:
        write_report(options.report, _report(options, recording, solved, start))
        click.echo(f"wrote {options.report}")
    _print_summary(options, recording, solved, start)


def _start(
    options: LoadOptions, recording: Recording, incumbent: NDArray[np.integer[Any]] | None
) -> _Start:
    """Returns what the plan is compared with: what is in force, else what needs no load."""
    start_map = incumbent
    if start_map is None:
        start_map = initial_phy2log(
            recording.num_layers,
            recording.num_logical_experts,
            options.num_slots,
            num_ranks=options.num_ranks,
            masked_ranks=options.masked_ranks or (),
        )
    return _Start(
        balance=balance(
            recording.weight(),
            start_map,
            options.num_ranks,
            rank_capacities=options.rank_capacities,
        ),
        num_duplicates=_num_duplicates(start_map, options.num_ranks),
    )


def dimensions(
    options: ProblemOptions, recording: Recording, *, num_slots: int | None = None
) -> dict[str, Any]:
    """Returns the sizes of a problem by name, for reports and JSON.

    Masked ranks and capacities are among them where there are some.

    Args:
        options: The machine.
        recording: The load.
        num_slots: Slots per layer over all ranks; None leaves them out.
    """
    slots = {} if num_slots is None else {"num_slots": num_slots}
    damage = {
        name: list(values)
        for name, values in (
            ("masked_ranks", options.masked_ranks),
            ("rank_capacities", options.rank_capacities),
        )
        if values is not None
    }
    return {
        "num_samples": recording.num_samples,
        "num_layers": recording.num_layers,
        "num_logical_experts": recording.num_logical_experts,
        "num_expert_groups": options.num_expert_groups,
        "num_nodes": options.num_nodes,
        "num_ranks": options.num_ranks,
        **slots,
        **damage,
        "layer_ids": list(recording.layer_ids),
    }


def _report(
    options: LoadOptions, recording: Recording, solved: SolvedPlan, start: _Start
) -> Mapping[str, Any]:
    foreign = (
        {}
        if solved.foreign_replicas is None
        else {"spill": options.spill, "foreign_replicas": list(solved.foreign_replicas)}
    )
    return {
        "policy": solved.policy,
        "parameters": dict(solved.parameters),
        "mode": solved.mode,
        "seed": solved.seed,
        "balancedness": solved.balancedness,
        "per_layer": list(solved.per_layer),
        "balancedness_before": start.balance.balancedness,
        "duplicates": _num_duplicates(solved.phy2log, options.num_ranks),
        **foreign,
        **{
            name: value
            for name, value in (
                ("moved_slots", solved.moved_slots),
                ("benefit", solved.benefit),
                ("transfers", solved.transfers),
            )
            if value is not None
        },
        "seconds": solved.solve_s,
        "version": solved.version,
        "sha256": solved.digest,
        **dimensions(options, recording, num_slots=options.num_slots),
    }


def _print_summary(
    options: LoadOptions, recording: Recording, solved: SolvedPlan, start: _Start
) -> None:
    table = Table(title=escape(f"{solved.policy}, {solved.mode}"), title_justify="left")
    table.add_column("")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    before, after = (
        start.balance,
        Balance(balancedness=solved.balancedness, per_layer=solved.per_layer),
    )
    for name, old, new in (
        ("balancedness", before.balancedness, after.balancedness),
        ("  mean of layers", before.mean, after.mean),
        ("  worst layer", before.minimum, after.minimum),
    ):
        table.add_row(name, f"{old:.4f}", f"{new:.4f}")
    num_duplicates = _num_duplicates(solved.phy2log, options.num_ranks)
    table.add_row("duplicates on a rank", str(start.num_duplicates), str(num_duplicates))
    if solved.foreign_replicas is not None:
        table.add_row("foreign replicas, most in a layer", "", str(max(solved.foreign_replicas)))
    if solved.moved_slots is not None:
        table.add_row("moved slots, all layers", "", str(solved.moved_slots))
    if solved.benefit is not None:
        table.add_row("predicted gain", "", f"{solved.benefit['gain']:+.2%}")
        table.add_row("migration, s", "", f"{solved.benefit['migration_s']:.3f}")
        table.add_row("worth while", "", "yes" if solved.benefit["is_worthwhile"] else "no")
        if solved.benefit["necessity"] is not None:
            cause = str(solved.benefit["necessity"]).replace("_", " ")
            table.add_row("cannot stay because of", "", cause)
    print_table(table)
    click.echo(
        f"{recording.num_layers} layers x {recording.num_logical_experts} experts -> "
        f"{options.num_slots} slots on {options.num_ranks} ranks "
        f"in {solved.solve_s:.3f} s, sha256 {solved.digest[:12]}"
    )
    print_notes(recording)


def _num_duplicates(phy2log: NDArray[np.integer[Any]], num_ranks: int) -> int:
    """Returns the slots, over all layers, whose expert their rank holds already."""
    residents = np.sort(phy2log.reshape(len(phy2log), num_ranks, -1), axis=2)
    is_held = residents[..., 1:] >= 0
    return int(((residents[..., 1:] == residents[..., :-1]) & is_held).sum())
