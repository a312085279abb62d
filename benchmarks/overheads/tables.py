"""What was measured, as sections of the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median

from overheads.budget import SETTLED, Spent
from overheads.memory import STEPS
from overheads.monitors import IDLE, MONITORS
from overheads.page import machine, spread, table
from overheads.pairs import Turns, bare_seconds, cpu_ratio, extra_microseconds, wall_ratio
from overheads.training import Size

HIGHER_TIERS = {3: "stabdiag, a step at the slow tier", 4: "stabdiag, a step at the rare tier"}


def ratios(size: Size, taken: Mapping[str, list[Turns]]) -> str:
    """Of a step to a bare one, a row a monitor; `taken` may lack some of them."""
    rows = []
    for name, monitor in MONITORS.items():
        if taken.get(name):
            rows.append(_row(monitor.label, taken[name], monitor.tier, size.device))
    whole = taken.get("stabdiag-standard", [])
    for tier, label in HIGHER_TIERS.items():
        if any(list(turns.of_tier(tier)) for turns in whole):
            rows.append(_row(label, whole, tier, size.device))
    every = [turns for each in taken.values() for turns in each]
    bare = f" A bare step takes {1000 * bare_seconds(every):.1f} ms of CPU time." if every else ""
    clock = "wall time, quiet turns" if size.device == "cpu" else "time of the GPU"
    header = ["Monitor", "CPU time", clock, "turns"]
    return f"{size}.{bare} {machine(size.device)}.\n\n{table(header, rows)}"


def _row(label: str, taken: Iterable[Turns], tier: int | None, device: str) -> list[str]:
    turns = [turn for each in taken for turn in each.of_tier(tier)]
    quiet = [ratio for turn in turns if (ratio := wall_ratio(turn, device)) is not None]
    wall = f"{spread(quiet)} n={len(quiet)}" if quiet else "–"
    return [label, spread([cpu_ratio(turn) for turn in turns]), wall, str(len(turns))]


def budget(budgeted: Sequence[Spent], control: Sequence[Spent], steps: int) -> str:
    """A row a run, and their mean."""
    columns = {
        "by the bare process": _percents([spent.paired for spent in budgeted], 2),
        "bare by bare": _percents([spent.paired for spent in control], 2),
        "by unrecorded neighbours": _percents([spent.neighbours for spent in budgeted], 2),
        "as the run tells": _percents([spent.told for spent in budgeted], 2),
        "fast steps": _percents([spent.fast for spent in budgeted], 0),
        "higher tiers": _percents([spent.above for spent in budgeted], 1),
    }
    names = [*(str(number) for number in range(1, len(budgeted) + 1)), "mean"]
    rows = [[name, *row] for name, row in zip(names, zip(*columns.values(), strict=True), strict=True)]
    first = min(SETTLED, steps // 2)
    return (
        f"Under a budget of 2 %, what runs of {steps} steps spend after step {first}, as a share of the bare"
        f" time:\n\n{table(['Run', *columns], rows)}"
    )


def _percents(shares: Sequence[float], digits: int) -> list[str]:
    """Of every run, and their mean; a run without a figure, such as one of fast steps only that has no
    unrecorded neighbour, counts for nothing."""
    known = [share for share in shares if not math.isnan(share)]
    every = [*shares, fmean(known) if known else math.nan]
    return ["–" if math.isnan(share) else f"{share:.{digits}%}" for share in every]


def idle(size: Size, taken: Mapping[str, list[Turns]], small_seconds: float) -> str:
    rows = []
    for name in taken:
        turns = [t for each in taken[name] for t in each.of_tier(MONITORS[name].tier)]
        extra = [extra_microseconds(turn) for turn in turns]
        of_small = f"{median(extra) / small_seconds / 1e4:.3f} %"
        rows.append([MONITORS[name].label, spread(extra, 0), of_small, str(len(turns))])
    told = [turns.account for turns in taken.get(IDLE, []) if turns.account is not None]
    own = [1e6 * s for a in told for s in a.overhead[a.tier == 0].tolist()]
    header = ["Monitor", "µs a step", "of a step of small", "turns"]
    return (
        f"{size}: as many modules and parameters as the small model, and next to no arithmetic. A bare step"
        f" takes {1e6 * bare_seconds(taken[IDLE]):.0f} µs. {machine()}.\n\n{table(header, rows)}\n\n"
        f"The run itself tells of {spread(own, 0)} µs in a step that is not recorded."
    )


def memory(peaks: Mapping[str, list[float]]) -> str:
    bare = median(peaks["bare"])
    rows = [
        [MONITORS[name].label, spread(values, 0), f"{median(values) - bare:+.0f}", str(len(values))]
        for name, values in peaks.items()
        if values
    ]
    header = ["Monitor", "peak, MiB", "beyond bare", "runs"]
    return (
        f"The most that a process held (VmHWM) in {STEPS} steps of small, a fresh process each time, with all"
        f" that the monitor imports. {machine()}.\n\n{table(header, rows)}"
    )
