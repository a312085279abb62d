"""What recording costs, beside what other monitors cost: prints tables and writes them into a page.

    python benchmarks/overhead.py [PART ...] [--size SIZE] [--only MONITOR] [--rounds N] [--steps N]

PART is `ratios` (of a step to a bare one, and whether a budget of 2 % is held), `idle` (what steps cost
that are not recorded) or `memory`; all of them, if none is given. With `--only` the other monitors are
left out, and the page is written only if `--page` names one.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

from overheads import page, tables
from overheads.budget import watch_spending
from overheads.memory import peaks
from overheads.monitors import BUDGET, IDLE, MONITORS
from overheads.pairs import Turns, bare_seconds, take_turns
from overheads.training import SIZES, Size

PAGE = Path(__file__).parents[1] / "docs" / "measured.md"
IDLE_BESIDE = ["bare", IDLE, "stabdiag-fast", "stabdiag-standard"]
SKELETON = "skeleton"


def ratios(name: str, size: Size, only: list[str], failures: dict[str, str]) -> str:
    taken = turns(name, size, [m for m in only if m not in (BUDGET, IDLE)], failures)
    budgeted, control = [], []
    for run in range(size.runs if BUDGET in only else 0):
        print(f"{name}: budget, run {run}", file=sys.stderr, flush=True)
        budgeted.append(watch_spending(BUDGET, name, size.length))
        control.append(watch_spending("bare", name, size.length))
    parts = [tables.ratios(size, taken, budgeted)]
    if budgeted:
        parts.append(tables.budget(budgeted, control, size.length))
    return "\n\n".join(parts)


def turns(name: str, size: Size, monitors: list[str], failures: dict[str, str]) -> dict[str, list[Turns]]:
    taken: dict[str, list[Turns]] = {monitor: [] for monitor in monitors}
    for monitor, found in take_turns(monitors, name, size, failures):
        taken[monitor].append(found)
    return taken


def idle(size: Size, failures: dict[str, str]) -> str:
    brief = SIZES["small"]._replace(rounds=3)
    small = bare_seconds(turns("small", brief, ["bare"], failures)["bare"])
    return tables.idle(size, turns(SKELETON, size, IDLE_BESIDE, failures), small)


def measure(options: argparse.Namespace, only: list[str], failures: dict[str, str]) -> dict[str, str]:
    """Title -> section of the page, of the parts that were asked for."""
    sections: dict[str, str] = {}
    parts = options.parts or ["ratios", "idle", "memory"]
    if "ratios" in parts:
        for name in options.size or ["small", "medium"]:
            sections[name.capitalize()] = ratios(name, adapted(SIZES[name], options), only, failures)
    if "idle" in parts:
        sections["Steps that are not recorded"] = idle(adapted(SIZES[SKELETON], options), failures)
    if "memory" in parts:
        sections["Memory"] = tables.memory(peaks(only, "small", options.rounds or 3, failures))
    return sections


def adapted(size: Size, options: argparse.Namespace) -> Size:
    if options.rounds:
        size = size._replace(rounds=options.rounds, fresh=min(size.fresh, options.rounds))
    if options.steps:
        size = size._replace(steps=options.steps, length=20 * options.steps, runs=1)
    return size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="ratios, idle, memory")
    parser.add_argument("--size", action="append", choices=SIZES, help="of the ratios; small and medium")
    parser.add_argument("--only", action="append", choices=MONITORS, help="monitors of ratios and memory")
    parser.add_argument("--rounds", type=int, help="turns of each monitor; runs that look at memory")
    parser.add_argument("--steps", type=int, help="steps of a turn; a run under a budget has 20 turns")
    parser.add_argument("--page", type=Path, help="default docs/measured.md")
    options = parser.parse_args()
    failures: dict[str, str] = {}
    sections = measure(options, [m for m in options.only or MONITORS if m != IDLE], failures)
    for title, body in sections.items():
        print(f"{title}\n\n{body}\n")
    for monitor, why in failures.items():
        print(f"{monitor} was not measured: {why}", file=sys.stderr)
    if options.page or not options.only:
        page.write(options.page or PAGE, sections)


if __name__ == "__main__":
    main()
