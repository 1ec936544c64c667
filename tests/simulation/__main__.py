"""Run worlds: `python -m tests.simulation --seeds 0:1000`, or `--seed 7 --trace` for one."""

from __future__ import annotations

import argparse
import sys
import time

import click

from .runs import run


def main() -> int:
    """Run what the arguments say, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seeds", help="A:B, from A to B - 1")
    which.add_argument("--seed", type=int, help="one world")
    parser.add_argument("--trace", action="store_true", help="print all that happens in it")
    parser.add_argument("--tail", type=int, default=40, help="lines of trace for a failure")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return _run_one(arguments.seed, has_trace=arguments.trace, tail=arguments.tail)
    first, end = map(int, arguments.seeds.split(":"))
    began_s = time.process_time()
    failed = []
    for seed in range(first, end):
        story = run(seed)
        if story.error is not None:
            failed.append(seed)
            click.echo(story.told(arguments.tail))
    spent_s = time.process_time() - began_s
    each_ms = 1000.0 * spent_s / (end - first)
    click.echo(f"{end - first} seeds, {each_ms:.1f} ms each, failed: {failed}")
    return 1 if failed else 0


def _run_one(seed: int, *, has_trace: bool, tail: int) -> int:
    story = run(seed)
    if has_trace:
        click.echo("\n".join(story.world.loop.lines()))
    elif story.error is not None:
        click.echo("\n".join(story.world.loop.lines(tail)))
    click.echo(story.told(0) if story.error is not None else f"seed {seed}: all is well")
    click.echo(story.world.loop.fingerprint())
    return 1 if story.error is not None else 0


if __name__ == "__main__":
    sys.exit(main())
