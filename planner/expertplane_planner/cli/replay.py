"""`expertplane replay`: which policy does best on load that it has not seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from expertplane_client.console import (
    COUNT,
    FILE,
    errors_in_one_line,
    group_options,
    plot_option,
    print_table,
    rank_options,
    require_extra,
    slots_option,
    write_picture,
)
from expertplane_client.formats import write_report
from expertplane_planner.errors import PlannerError

from .progress import progress


if TYPE_CHECKING:
    from torch import Tensor

    from expertplane_planner.replay import ReplayReport


_DEFAULT_POLICIES = ("deepseek", "balanced", "robust")


@click.command()
@click.argument("tracefile", metavar="TRACE", type=click.Path(path_type=Path))
@rank_options
@slots_option
@group_options
@click.option(
    "--spill",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Replicas per layer that may leave their group's node in soft-hierarchical mode.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0, max=2**63 - 1),
    default=0,
    show_default=True,
    help="Seed for policies that draw random numbers.",
)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    default=_DEFAULT_POLICIES,
    show_default=True,
    help="Algorithm to replay, repeatable; `static` keeps the first plan of the first.",
)
@click.option(
    "--warmup-windows",
    type=COUNT,
    help="Windows before the first that is scored; half of the trace by default.",
)
@click.option(
    "--every",
    type=COUNT,
    metavar="STEPS",
    help="Steps from one re-plan to the next; divides the steps of a window, and is all of them "
    "by default.",
)
@click.option(
    "--move-budget",
    type=click.IntRange(min=0),
    metavar="SLOTS",
    help="Slots of each layer that a re-plan may move, for policies that can go on from the "
    "placement in force; others plan from scratch.",
)
@click.option("--json", "report", type=FILE, help="Where the figures go (.json).")
@plot_option
def replay(
    tracefile: Path,
    num_ranks: int,
    num_slots: int,
    num_nodes: int,
    policies: tuple[str, ...],
    report: Path | None,
    picture: Path | None,
    **how: Any,
) -> None:
    """Plan on the past of TRACE, score each plan on the window that follows.

    TRACE is a .npz file whose `samples` are tokens per window, sample, layer and logical expert,
    as `expertplane trace` writes it. Balancedness is mean over busiest rank load, both summed over
    layers, of every step after the warm-up. Moved slots are those of a re-plan, after relabelling.

    Policies see the last window, most of them its sum only; `robust` also sees a forecast learned
    from all that has been. `static` never
    re-plans. `oracle` is `robust` with the mean and covariance of the window to come. "Gap closed"
    is the share of the way from `balanced` to `oracle`.
    """
    if picture is not None:
        require_extra("expertplane replay --plot", package="matplotlib", extra="plots")
    with errors_in_one_line(PlannerError):
        from .replay_trace import read_trace
        from .replay_views import replay_document, replay_table

        samples = _tensor(read_trace(tracefile))
        sizes = {
            "num_layers": samples.shape[2],
            "num_logical_experts": samples.shape[3],
            "num_nodes": num_nodes,
            "num_ranks": num_ranks,
            "num_slots": num_slots,
        }
        found = _replay(samples, sizes, tuple(dict.fromkeys(policies)), **how)
        print_table(replay_table(found, sizes))
        if report is not None:
            settings = {name: how[name] for name in ("num_expert_groups", "spill", "seed")}
            write_report(report, {**sizes, **settings, **replay_document(found)})
            click.echo(f"wrote {report}")
        if picture is not None:
            from .replay_picture import replay_picture

            write_picture(picture, replay_picture(found, sizes))
            click.echo(f"wrote {picture}")


def _tensor(samples: Any) -> Tensor:
    import torch

    return torch.from_numpy(samples)


def _replay(
    samples: Tensor,
    sizes: dict[str, int],
    policies: tuple[str, ...],
    *,
    num_expert_groups: int,
    mode: str,
    spill: int,
    seed: int,
    warmup_windows: int | None,
    every: int | None,
    move_budget: int | None,
) -> ReplayReport:
    from expertplane_planner import Mode, Topology
    from expertplane_planner.replay import replay as replay_policies

    topology = Topology(
        num_nodes=sizes["num_nodes"], num_ranks=sizes["num_ranks"], num_slots=sizes["num_slots"]
    )
    num_windows = samples.shape[0]
    warmup = max(1, num_windows // 2) if warmup_windows is None else warmup_windows
    with progress(max(0, num_windows - warmup)) as announce:
        return replay_policies(
            samples,
            topology,
            policies,
            warmup_windows=warmup,
            mode=Mode(mode),
            num_expert_groups=num_expert_groups,
            spill=spill,
            seed=seed,
            every=every,
            move_budget=move_budget,
            announce=lambda index: announce(f"window {index + 1} of {num_windows}"),
        )
