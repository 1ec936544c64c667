"""How plans fare in windows that come after them: every kind of traffic, every regime, 5 seeds.

After 20 windows of history, plans are made for each of 8 windows from what came before it, and
every step of the window is scored. Balancedness of a step is the sum over layers of mean rank load
over the sum of maxima; `gap closed` is (policy - balanced) / (oracle - balanced). `ceiling` is
`robust` told the true predictive distribution: the state of the traffic one window before.

Run `python -m tests.bench.foresight --help`; EXPERTPLANE_FIXTURES names the folder of recordings.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from expertplane_planner import Mode, Topology, get_policy, solve
from expertplane_planner.balance import balancedness, rank_load
from expertplane_planner.migration import relabel
from expertplane_planner.model.budget import MoveBudget
from expertplane_planner.model.incumbent import Incumbent
from expertplane_planner.replay.past import Past, foreknowledge
from expertplane_planner.solving import warm_up

from .machine import describe, headline
from .mixes import KINDS, NUM_STEPS, RECORDED, REGIMES, Mix, Regime, make_mix
from .tables import as_table


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from expertplane_planner import Placement, Policy
    from expertplane_planner.forecast import Prediction
    from expertplane_planner.replay.past import Knowledge


NUM_SEEDS = 5
STARTS = (1, 4, 8, 16)
NUM_HISTORY = 20
NUM_SCORED = 8
SWITCH_AT = NUM_HISTORY + NUM_SCORED // 2
TOPOLOGY = Topology(num_nodes=1, num_ranks=32, num_slots=288)

Scores = dict[str, float]


@dataclass(slots=True)
class Contestant:
    """Who plans, how often, and what came of it."""

    plan: Callable[[int, Knowledge, Placement | None], Placement]
    """Told the window's index, the past and what is in force."""

    every: int = NUM_STEPS
    placement: Placement | None = None
    scores: list[float] = field(default_factory=list)
    moved: list[float] = field(default_factory=list)

    def replan(self, index: int, known: Knowledge) -> None:
        """Put a new plan in force."""
        before, self.placement = self.placement, self.plan(index, known, self.placement)
        if before is not None:
            self.moved.append(float(self.placement.moved_slots(before).double().mean()))

    def score(self, block: torch.Tensor) -> None:
        """Score the plan in force."""
        assert self.placement is not None
        self.scores.append(float(balancedness(rank_load(self.placement, block)).mean()))


def play(mix: Mix, contestants: dict[str, Contestant]) -> tuple[Scores, Scores]:
    """Returns each contestant's mean balancedness, and its moved slots per layer and re-plan."""
    pasts = {each.every: Past(NUM_STEPS // each.every) for each in contestants.values()}
    for index, window in enumerate(mix.windows):
        for every, past in pasts.items():
            chosen = [each for each in contestants.values() if each.every == every]
            for block in torch.split(window, every):
                if index >= NUM_HISTORY:
                    known = past.knowledge()
                    for each in chosen:
                        each.replan(index, known)
                        each.score(block)
                past.observe(block)
    everybody = contestants.items()
    return (
        {name: statistics.fmean(each.scores) for name, each in everybody},
        {name: statistics.fmean(each.moved or [0.0]) for name, each in everybody},
    )


def robust(_: int, known: Knowledge, current: Placement | None) -> Placement:
    """Plans from scratch on the forecast."""
    return _solved(known, "robust", known.prediction)


def balanced(_: int, known: Knowledge, current: Placement | None) -> Placement:
    """Plans from scratch on the last window's sum."""
    return _solved(known, "balanced", None)


def relabelled(_: int, known: Knowledge, current: Placement | None) -> Placement:
    """Plans from scratch, then puts as much as possible where it is already."""
    placement = _solved(known, "robust", known.prediction)
    return placement if current is None else relabel(placement, current, by_node=False)


def static(index: int, known: Knowledge, current: Placement | None) -> Placement:
    """Never re-plans."""
    return current or robust(index, known, None)


def within(num_slots: int) -> Callable[[int, Knowledge, Placement | None], Placement]:
    """Returns a planner that moves from the plan in force under a budget for each layer."""

    def plan(index: int, known: Knowledge, current: Placement | None) -> Placement:
        if current is None:
            return robust(index, known, None)
        budget = MoveBudget(slots_per_layer=num_slots)
        return _solved(
            known, "robust", known.prediction, Incumbent(placement=current, budget=budget)
        )

    return plan


def _solved(
    known: Knowledge,
    policy: str | Policy,
    prediction: Prediction | None,
    incumbent: Incumbent | None = None,
) -> Placement:
    plan = solve(
        known.load,
        TOPOLOGY,
        mode=Mode.GLOBAL,
        policy=policy,
        prediction=prediction,
        incumbent=incumbent,
    )
    return plan.placement


def from_scratch(mix: Mix) -> tuple[Scores, Scores]:
    """Plays the rows of the first table."""

    def oracle(index: int, known: Knowledge, current: Placement | None) -> Placement:
        told = foreknowledge(mix.windows[index])
        return _solved(told, "robust", told.prediction)

    def ceiling(index: int, known: Knowledge, current: Placement | None) -> Placement:
        return _solved(known, "robust", mix.foreseeable(index))

    planners = {
        "static": static,
        "balanced": balanced,
        "robust": robust,
        "ceiling": ceiling,
        "oracle": oracle,
    }
    return play(mix, {name: Contestant(plan) for name, plan in planners.items()})


def from_incumbent(mix: Mix) -> tuple[Scores, Scores]:
    """Plays the rows of the second and third table."""
    return play(
        mix,
        {
            "static": Contestant(static),
            "full": Contestant(relabelled),
            "16 every 16": Contestant(within(16)),
            "4 every 4": Contestant(within(4), every=4),
        },
    )


def from_starts(mix: Mix) -> tuple[Scores, Scores]:
    """Plays policies that try more or fewer packings of each layer."""

    def trying(num_starts: int) -> Callable[[int, Knowledge, Placement | None], Placement]:
        policy = get_policy("robust", {"num_starts": str(num_starts)})
        return lambda index, known, current: _solved(known, policy, known.prediction)

    def oracle(index: int, known: Knowledge, current: Placement | None) -> Placement:
        told = foreknowledge(mix.windows[index])
        return _solved(told, "robust", told.prediction)

    planners = {_starts(count): trying(count) for count in STARTS}
    planners |= {"balanced": balanced, "oracle": oracle}
    return play(mix, {name: Contestant(plan) for name, plan in planners.items()})


def _starts(count: int) -> str:
    return f"{count} start{'s' if count > 1 else ''}"


@dataclass(frozen=True, slots=True)
class Table:
    """One table: traffic, who plays, and what is worked out of the means over all seeds."""

    title: str
    switch_at: int | None
    play: Callable[[Mix], tuple[Scores, Scores]]
    derive: Callable[[Scores], Scores]


def gaps(score: Scores) -> Scores:
    """Returns parts of the gap that are closed."""
    gap = score["oracle"] - score["balanced"]
    closed, highest = ((score[name] - score["balanced"]) / gap for name in ("robust", "ceiling"))
    return {"closed": closed, "ceiling closed": highest, "of ceiling": closed / highest}


def kept(score: Scores) -> Scores:
    """Returns parts of the gain of a full re-plan that a budget keeps."""
    gain = score["full"] - score["static"]
    return {
        f"kept by {name}": (score[name] - score["static"]) / gain
        for name in ("16 every 16", "4 every 4")
    }


def gaps_by_starts(score: Scores) -> Scores:
    """Returns parts of the gap that are closed, by packings tried."""
    gap = score["oracle"] - score["balanced"]
    return {
        f"closed by {count}": (score[_starts(count)] - score["balanced"]) / gap for count in STARTS
    }


TABLES = {
    "drift": Table("1. A new plan every window, drift alone", None, from_scratch, gaps),
    "switch": Table(
        f"1b. The same, and traffic turns over after {SWITCH_AT - NUM_HISTORY} scored windows",
        SWITCH_AT,
        from_scratch,
        gaps,
    ),
    "budget": Table(
        "2, 3. Moved slots per layer: 16 every 16 steps, 4 every 4 steps, and no limit",
        None,
        from_incumbent,
        kept,
    ),
    "starts": Table(
        "4. A new plan every window, by packings tried for each layer, the best in sample taken",
        None,
        from_starts,
        gaps_by_starts,
    ),
}
USUAL_TABLES = ("drift", "switch", "budget")


def measure(table: Table, kinds: tuple[str, ...], num_seeds: int) -> list[dict[str, Any]]:
    """Returns a row for each kind and regime, and each kind's mean over regimes."""
    rows = []
    for kind in kinds:
        of_kind = [_row(table, kind, regime, num_seeds) for regime in REGIMES]
        rows += [*of_kind, _mean_row(table, kind, of_kind)]
    return rows


def _row(table: Table, kind: str, regime: Regime, num_seeds: int) -> dict[str, Any]:
    folder = os.environ.get("EXPERTPLANE_FIXTURES")
    seeds = []
    moved: dict[str, list[float]] = defaultdict(list)
    for seed in range(num_seeds):
        mix = make_mix(
            kind,
            regime,
            seed,
            num_windows=NUM_HISTORY + NUM_SCORED,
            switch_at=table.switch_at,
            fixtures=Path(folder) if folder else None,
        )
        score, moves = table.play(mix)
        seeds.append(score | table.derive(score))
        for name, value in moves.items():
            moved[name].append(value)
    mean = {name: statistics.fmean(seed[name] for seed in seeds) for name in seeds[0]}
    return {
        "kind": kind,
        "regime": regime.name,
        "mean": mean,
        "moved_slots_per_layer": {name: statistics.fmean(all_) for name, all_ in moved.items()},
        "seeds": seeds,
    }


def _mean_row(table: Table, kind: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the mean over regimes, of shares as of balancedness."""

    def mean(part: str) -> Scores:
        return {name: statistics.fmean(row[part][name] for row in rows) for name in rows[0][part]}

    return {
        "kind": kind,
        "regime": "mean",
        "mean": mean("mean"),
        "moved_slots_per_layer": mean("moved_slots_per_layer"),
    }


def as_text(name: str, rows: list[dict[str, Any]]) -> str:
    """Lays a table out for people."""
    names = list(rows[0]["mean"])
    head = ["traffic", "regime", *names]
    lines = [
        [row["kind"], row["regime"], *(f"{row['mean'][each]:.4f}" for each in names)]
        for row in rows
    ]
    text = f"{TABLES[name].title}\n\n{as_table(head, lines)}"
    if name == "budget":
        names = list(rows[0]["moved_slots_per_layer"])
        moved = [
            [row["kind"], row["regime"]]
            + [f"{row['moved_slots_per_layer'][each]:.1f}" for each in names]
            for row in rows
        ]
        head = ["traffic", "regime", *names]
        text += f"\nMoved slots per layer and re-plan\n\n{as_table(head, moved)}"
    return text


def kinds_at_hand() -> tuple[str, ...]:
    """Returns all kinds of traffic, without recorded ones where no recording is."""
    return tuple(
        kind for kind in KINDS if kind != RECORDED or os.environ.get("EXPERTPLANE_FIXTURES")
    )


def measure_foresight(
    tables: tuple[str, ...] = USUAL_TABLES, num_seeds: int = NUM_SEEDS
) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yields name, result and text of each table as it is finished."""
    warm_up()
    for name in tables:
        start_s = time.perf_counter()
        rows = measure(TABLES[name], kinds_at_hand(), num_seeds)
        result = {"rows": rows, "seconds": round(time.perf_counter() - start_s, 1)}
        yield name, result, as_text(name, rows)


def run(
    output: Path | None,
    tables: tuple[str, ...] = USUAL_TABLES,
    num_seeds: int = NUM_SEEDS,
    *,
    file: str = "FORESIGHT",
) -> None:
    """Measures, prints each table as it is finished, and keeps all of them in files."""
    results = describe()
    texts = [f"{headline(results)}\n"]
    for name, result, text in measure_foresight(tables, num_seeds):
        results[name] = result
        texts.append(text)
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / f"{file}.txt").write_text("\n".join(texts))
        (output / f"{file}.json").write_text(json.dumps(results, indent=2) + "\n")


def main() -> int:
    """Runs the tables and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for FORESIGHT.txt and FORESIGHT.json")
    parser.add_argument(
        "--table", action="append", choices=TABLES, help="by default all but starts"
    )
    parser.add_argument("--seeds", type=int, default=NUM_SEEDS)
    arguments = parser.parse_args()
    run(arguments.output, tuple(arguments.table or USUAL_TABLES), arguments.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
