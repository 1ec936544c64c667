"""What `simulate` and `demo` show: a line a window, live, and a closing table."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table


if TYPE_CHECKING:
    from collections.abc import Sequence

    from expertplane_server.cli.fleet import WindowResult

_BAR = 10
_HEADER = f"{'window':>6}  {'without':>7}  {'with':>7}  {'':{_BAR}}  decision"


class Display:
    """Prints as results come in.

    Args:
        console: where to.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(soft_wrap=True, highlight=False)

    def say(self, text: str) -> None:
        """Prints one line."""
        self._console.print(text)

    def header(self) -> None:
        """Prints the head of the live lines."""
        self._console.print("\nBalancedness per window (1 is perfect): mean / max rank load")
        self._console.print(_HEADER, style="bold")

    def window(self, result: WindowResult) -> None:
        """Prints one window's line."""
        filled = round(result.measured * _BAR)
        bar = f"[green]{'#' * filled}[/green][dim]{'.' * (_BAR - filled)}[/dim]"
        if result.plan_version:
            note = f"[cyan]plan v{result.plan_version}[/cyan], {result.predicted:.3f} predicted"
            if result.reached_s is not None:
                note += f", live in {result.reached_s * 1000:.0f} ms"
        else:
            note = f"[dim]{result.reason}[/dim]"
        figures = f"{result.index + 1:>6}  {result.without:>7.3f}  {result.measured:>7.3f}"
        self._console.print(f"{figures}  {bar}  {note}")

    def summary(self, results: Sequence[WindowResult]) -> None:
        """Prints the closing table."""
        published = [result for result in results if result.plan_version]
        skipped = Counter(result.reason for result in results if not result.plan_version)
        table = Table(title="Summary", title_justify="left", show_header=False)
        table.add_column()
        table.add_column(justify="right")
        table.add_row("windows", str(len(results)))
        table.add_row("plans published", str(len(published)))
        for reason, count in sorted(skipped.items()):
            table.add_row(f"windows without plan: {reason}", str(count))
        table.add_row("balancedness without Expertplane", f"{mean_without(results):.3f}")
        table.add_row("balancedness with Expertplane", f"{mean_with(results):.3f}")
        if published:
            moved = statistics.median(result.moved_slots for result in published)
            table.add_row("slots moved per plan, all layers (median)", f"{moved:.0f}")
        reached_ms = [each.reached_s * 1000 for each in results if each.reached_s is not None]
        if reached_ms:
            table.add_row(
                "plan latency, last sample to live on all nodes (median)",
                f"{statistics.median(reached_ms):.0f} ms",
            )
        self._console.print()
        self._console.print(table)


def mean_without(results: Sequence[WindowResult]) -> float:
    """Returns the mean balancedness under the start placement."""
    return statistics.fmean(result.without for result in results)


def mean_with(results: Sequence[WindowResult]) -> float:
    """Returns the mean balancedness as served, from the first window after a plan on.

    The windows before the first plan are left out: they show the start placement. Without a plan
    all count.
    """
    first = next((result.index for result in results if result.plan_version), -1)
    served = [result for result in results if result.index > first] if first >= 0 else results
    return statistics.fmean(result.measured for result in served or results)
