"""How far a run is, how fast it goes, and when it will be through."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stabdiag.core.run import Run
from stabdiag.render.numbers import count, duration, number

LENGTHS = frozenset(
    {"steps", "max-steps", "num-steps", "total-steps", "train-steps", "training-steps", "num-train-steps"}
    | {"num-training-steps", "max-train-steps", "iters", "max-iters", "num-iters", "iterations"}
)
"""What options are called that say how many optimizer steps a training takes."""

RECENT = 60.0
"""Seconds of which the throughput is taken, and no fewer than two steps."""

AMOUNTS = ("samples", "tokens")


@dataclass(frozen=True)
class Length:
    """How many optimizer steps the run is to take, and who says so."""

    steps: int
    source: str


def planned_length(run: Run) -> Length | None:
    """From an intervention that ends the run, its host, or an option of its command; None where nothing says
    it."""
    for request in run.info.configuration.get("apply", ()):
        name, _, value = str(request).partition("@")[0].partition("=")
        if name == "early-stopping" and value.isdecimal():
            return Length(int(value), "early-stopping")
    planned = run.fact("planned", "steps")
    if isinstance(planned, int) and planned > 0:
        return Length(planned, str(run.fact("planned", "source")))
    found = [Length(int(value), name) for name, value in _options(run.info.command) if int(value)]
    return found[0] if len({length.steps for length in found}) == 1 else None


def _options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """`--max-steps 100`, `--max_steps=100`, `trainer.max_steps=100`."""
    for word, following in zip(words, (*words[1:], ""), strict=False):
        name, mark, value = word.partition("=")
        value = value if mark else following if word.startswith("-") else ""
        plain = re.split(r"[.+]", name.lstrip("-+"))[-1].replace("_", "-")
        if plain in LENGTHS and value.isdecimal():
            yield name, value


@dataclass(frozen=True)
class Progress:
    """`pace` is in steps a second, None where two steps are not known yet; `amounts` are a second too."""

    steps: int
    pace: float | None
    amounts: dict[str, float]
    since: float | None
    length: Length | None

    @property
    def remaining(self) -> float | None:
        """Seconds, None where the run's length is not known, or is not what it was said to be."""
        if self.length is None or not self.pace or self.steps > self.length.steps:
            return None
        return (self.length.steps - self.steps) / self.pace

    @property
    def pace_words(self) -> str:
        if not self.pace:
            return "throughput unknown yet"
        return f"{self.pace:.3g} steps/s" if self.pace >= 1 else f"{duration(1 / self.pace)} a step"

    @property
    def amounts_words(self) -> str:
        """`128 samples/s, 8,190 tokens/s`; empty where nothing is counted."""
        return ", ".join(f"{number(float(f'{n:.3g}'))} {what}/s" for what, n in self.amounts.items())

    @property
    def ending_words(self) -> str:
        """`ETA 3 min 5 s (step 2,000, by --steps)`."""
        if self.remaining is None or self.length is None:
            return "ETA unknown (live --steps N)"
        return f"ETA {duration(self.remaining)} (step {count(self.length.steps)}, by {self.length.source})"


def progress(run: Run, now: float, length: Length | None = None) -> Progress:
    """`now` is in seconds since the epoch; `since` of the result are the seconds since the last step."""
    length = length or planned_length(run)
    data = run.kinds.get("run")
    if data is None or not len(data.steps):
        return Progress(run.steps, None, {}, None, length)
    last = float(data.times[-1])
    first = min(int(np.searchsorted(data.times, last - RECENT)), max(len(data.times) - 2, 0))
    steps, seconds = int(data.steps[-1] - data.steps[first]), last - float(data.times[first])
    pace = steps / seconds if seconds > 0 and steps > 0 else None
    amounts = {}
    for what in AMOUNTS:
        counted = data.values[what][first:, 0] if what in data.values else np.empty(0)
        if pace and np.isfinite(counted).any() and np.nanmean(counted) > 0:
            amounts[what] = float(np.nanmean(counted)) * pace
    return Progress(run.steps, pace, amounts, max(now - last, 0.0), length)
