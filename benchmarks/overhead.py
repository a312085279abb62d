"""What recording costs, beside what other monitors cost: prints tables and writes them into a page.

    python benchmarks/overhead.py [PART ...] [--size SIZE] [--only MONITOR] [--rounds N] [--steps N]

PART is `ratios` (of a step to a bare one), `budget` (whether a budget of 2 % is held), `idle` (what steps
cost that are not recorded) or `memory`; all of them, if none is given. Each two cores of the machine work
at one of them. With `--device cuda` the first two are of a GPU, and one is measured at a time. With `--only`
the other monitors are left out, and the page is written only if `--page` names one.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import SimpleQueue

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
PARTS = ("ratios", "budget", "idle", "memory")
Cores = tuple[int, int]
Task = Callable[[Cores], str]


def ratios(name: str, size: Size, only: list[str], failures: dict[str, str], cores: Cores) -> str:
    monitors = [m for m in only if m not in (BUDGET, IDLE)]
    return tables.ratios(size, turns(name, size, monitors, failures, cores))


def budget(name: str, size: Size, cores: Cores) -> str:
    spent = []
    for run in range(size.runs):
        print(f"{name}: budget, run {run}", file=sys.stderr, flush=True)
        spent.append([watch_spending(monitor, size, size.length, cores) for monitor in (BUDGET, "bare")])
    budgeted, control = zip(*spent, strict=True)
    return tables.budget(budgeted, control, size.length)


def turns(
    name: str, size: Size, monitors: list[str], failures: dict[str, str], cores: Cores
) -> dict[str, list[Turns]]:
    taken: dict[str, list[Turns]] = {monitor: [] for monitor in monitors}
    for monitor, found in take_turns(monitors, name, size, failures, cores[0]):
        taken[monitor].append(found)
    return taken


def idle(size: Size, failures: dict[str, str], cores: Cores) -> str:
    brief = SIZES["small"]._replace(rounds=3)
    small = bare_seconds(turns("small", brief, ["bare"], failures, cores)["bare"])
    return tables.idle(size, turns(SKELETON, size, IDLE_BESIDE, failures, cores), small)


def memory(only: list[str], runs: int, failures: dict[str, str], _cores: Cores) -> str:
    return tables.memory(peaks(only, SIZES["small"], runs, failures))


def tasks(options: argparse.Namespace, only: list[str], failures: dict[str, str]) -> list[tuple[str, Task]]:
    """(title of a section of the page, what makes a part of it) of all parts that were asked for."""
    found: list[tuple[str, Task]] = []
    on_gpu = options.device == "cuda"
    for name in options.size or (["small", "medium", "large"] if on_gpu else ["small", "medium"]):
        size = adapted(SIZES[name], options)
        title = name.capitalize() + (page.ON_GPU if on_gpu else "")
        if "ratios" in options.parts:
            found.append((title, partial(ratios, name, size, only, failures)))
        if "budget" in options.parts and BUDGET in only:
            found.append((title, partial(budget, name, size)))
    if "idle" in options.parts and not on_gpu:
        size = adapted(SIZES[SKELETON], options)
        found.append(("Steps that are not recorded", partial(idle, size, failures)))
    if "memory" in options.parts and not on_gpu:
        found.append(("Memory", partial(memory, only, options.rounds or 3, failures)))
    return found


def adapted(size: Size, options: argparse.Namespace) -> Size:
    size = size._replace(device=options.device)
    if options.device == "cuda":  # whose steps are that much shorter
        size = size._replace(steps=5 * size.steps)
    if options.rounds:
        size = size._replace(rounds=options.rounds, fresh=min(size.fresh, options.rounds))
    if options.steps:
        size = size._replace(steps=options.steps, length=20 * options.steps, runs=1)
    return size


def measure(wanted: list[tuple[str, Task]], device: str) -> dict[str, str]:
    """Title -> section of the page. Each task has two cores to itself."""
    cores = sorted(os.sched_getaffinity(0))
    pairs = list(zip(cores[::2], cores[1::2], strict=False)) or [(cores[0], cores[0])]
    free: SimpleQueue[Cores] = SimpleQueue()
    for pair in pairs[:1] if device == "cuda" else pairs:
        free.put(pair)

    def run(task: Task) -> str:
        mine = free.get()
        try:
            return task(mine)
        finally:
            free.put(mine)

    with ThreadPoolExecutor(len(wanted)) as pool:
        made = list(pool.map(run, (task for _, task in wanted)))
    sections: dict[str, list[str]] = {}
    for (title, _), part in zip(wanted, made, strict=True):
        sections.setdefault(title, []).append(part)
    return {title: "\n\n".join(parts) for title, parts in sections.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--size", action="append", choices=SIZES, help="of ratios and budget; small and medium"
    )
    parser.add_argument("--only", action="append", choices=MONITORS, help="monitors of ratios and memory")
    parser.add_argument("--rounds", type=int, help="turns of each monitor; runs that look at memory")
    parser.add_argument("--steps", type=int, help="steps of a turn; a run under a budget has 20 turns")
    parser.add_argument("--page", type=Path, help="default docs/measured.md")
    options = parser.parse_args()
    options.parts = options.parts or PARTS
    failures: dict[str, str] = {}
    wanted = tasks(options, [m for m in options.only or MONITORS if m != IDLE], failures)
    sections = measure(wanted, options.device)
    for title, body in sections.items():
        print(f"{title}\n\n{body}\n")
    for monitor, why in failures.items():
        print(f"{monitor} was not measured: {why}", file=sys.stderr)
    if options.page or not options.only:
        page.write(options.page or PAGE, sections)


if __name__ == "__main__":
    main()
