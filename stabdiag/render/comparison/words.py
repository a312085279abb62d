"""What there is to say of two runs, in words; each kind of report lays it out its own way."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from stabdiag.core.comparison import Comparison, Difference, Level, OnlyOne, Parting
from stabdiag.core.finding import Finding
from stabdiag.render import describe
from stabdiag.render.numbers import count, number
from stabdiag.render.untrusted import name, presentable

GIVEN = {
    "initial.rms": "the initial weights",
    "initial.absmax": "the initial weights",
    "run.lr": "the learning rate",
    "run.samples": "the samples a step",
    "run.tokens": "the tokens a step",
    "run.micro_batches": "the micro-batches a step",
    "batch.fingerprint": "the batches",
}
"""What a run is given, and how it is called; the values of the others are not measured but drawn."""

DRAWN = ("initial.rms", "initial.absmax", "batch.fingerprint")
NAMED, LONG = 5, 1000
JUST = 1.15
TORCH = "/torch/nn/modules/"
"""Where the line of a class tells nothing of the user's model."""


def verdict_sentence(told: Comparison) -> str:
    """The one sentence that a hurried reader needs."""
    steps = count(min(told.steps), "step")
    if told.verdict == "identical":
        return f"Identical to the bit: {count(told.values, 'value')} over {steps}{_end(told)}."
    if told.verdict == "same":
        return f"The same within their noise over {steps}{_end(told)}{_bits(told)}."
    if told.verdict == "incomparable" or told.first is None:
        return "Nothing to compare: the two runs recorded nothing at common places and steps."
    if told.verdict == "unpaired":
        what, step = " and ".join(_drawn(told)), count(told.first.step)
        return f"They part at step {step}: other {what}. What remains to compare is where they settle."
    return f"They part at {when(told.first)}: {what_parted(told.first)}."


def _end(told: Comparison) -> str:
    """`, where B ends; A goes on to step 200`; empty where both end together."""
    a, b = told.steps
    if a == b:
        return ""
    short, long = ("A", "B") if a < b else ("B", "A")
    return f", where {short} ends; {long} goes on to step {count(max(a, b) - 1)}"


def _bits(told: Comparison) -> str:
    first = told.first_bit
    if first is None:
        return ""
    return f"; they differ first at step {count(first.step)}{_relative(first)}"


def _drawn(told: Comparison) -> list[str]:
    partings = [told.first, *told.followed]
    at = told.first.step if told.first else 0
    drawn = [GIVEN[p.series] for p in partings if p and p.series in DRAWN and p.step == at]
    return list(dict.fromkeys(what.removeprefix("the ") for what in drawn))


def _relative(parting: Parting) -> str:
    """`, by 6e-08 of the value`; empty where a share says nothing."""
    larger = max(abs(parting.a), abs(parting.b))
    if not 0 < larger < float("inf"):
        return ""
    return f", by {abs(parting.b - parting.a) / larger:.1g} of its value, in {place(parting)}"


def identical(told: Comparison) -> str:
    """How long they are the same to the bit."""
    if told.identical_until is None:
        return "at no step" if told.first_bit else "nothing was compared"
    return f"to the bit until step {count(told.identical_until)}"


def first_bit(told: Comparison) -> str:
    """The first difference at all, empty where there is none or where it is the parting itself."""
    first, parting = told.first_bit, told.first
    if first is None:
        return ""
    if parting and first.series == parting.series and (first.site == parting.site or first.series in GIVEN):
        return ""
    return f"step {count(first.step)}, {place(first)}{_values(first)}"


def place(parting: Parting) -> str:
    """`output.rms at blocks.1.mlp (Sequential, train.py:40)`; a setting by its name."""
    if parting.series in GIVEN:
        return GIVEN[parting.series]
    if parting.site == "run":
        return "the loss" if parting.series == "run.loss" else parting.series
    own = "" if TORCH in parting.source else describe.nearby(parting.source)
    where = ", ".join(filter(None, (name(parting.module_type), name(own))))
    return f"{parting.series} at {name(parting.site) or 'the model'}" + (f" ({where})" if where else "")


def when(parting: Parting) -> str:
    """`step 150`, or between which records."""
    if parting.step - parting.within > 1 and parting.within >= 0:
        return f"a step between {count(parting.within + 1)} and {count(parting.step)}"
    return f"step {count(parting.step)}"


def at_step(parting: Parting) -> str:
    """`step 150`, or `by 150` where it was not seen together in the step before."""
    return f"{'by' if parting.step - parting.within > 1 else 'step'} {count(parting.step)}"


def what_parted(parting: Parting) -> str:
    """`output.rms at blocks.1.mlp, 0.85 against 2.55, 7 times their noise`."""
    return f"{place(parting)}{_values(parting)}{noise(parting.excess)}"


def _values(parting: Parting) -> str:
    if parting.series in DRAWN:
        return ""
    return f", {value(parting.a)} against {value(parting.b)}"


def value(amount: float) -> str:
    """What is infinite was not finite: a NaN or an infinity."""
    return "not finite" if abs(amount) == float("inf") else number(amount)


def noise(excess: float | None) -> str:
    """`, 7 times their noise`; empty where it is compared exactly, or no number."""
    if excess is None or excess == float("inf"):
        return ""
    return f", {times(excess)} their noise" if excess >= JUST else ", just beyond their noise"


def times(excess: float) -> str:
    """`7.1 times`, `37 times`."""
    return f"{excess:.0f} times" if excess >= 10 else f"{excess:.1f} times"


def extent(parting: Parting, last: int) -> str:
    """At how many places, and for how long: `6 of 35 places, until step 295`."""
    places = f"{count(parting.sites)} of {count(parting.of, 'place')}" if parting.of > 1 else ""
    over = parting.until < last - max(last // 10, 1)
    return ", ".join(
        filter(None, (places, f"together again after step {count(parting.until)}" if over else ""))
    )


def level_words(level: Level) -> str:
    """`1.75 ± 0.08 against 1.74 ± 0.08, the same`, and how far they lie apart at equal steps."""
    told = f"{band(level.a, level.band_a)} against {band(level.b, level.band_b)}"
    if level.beyond:
        return f"{told}, apart"
    share = share_of_noise(level.noise)
    return f"{told}, the same" + (f" (at equal steps {share} their noise apart)" if share else "")


def band(level: float, half: float) -> str:
    """`1.75 ± 0.084`."""
    return f"{value(level)} ± {half:.2g}"


def share_of_noise(share: float | None) -> str:
    """`0.02 times`, `37 times`; empty where it is not known, or nothing."""
    if not share:
        return ""
    if share < 0.01:
        return "less than 0.01 times"
    return times(share) if share >= 1 else f"{share:.2g} times"


def level_place(level: Level) -> str:
    return level.series if level.site == "run" else f"{level.series} at {name(level.site)}"


def only(one: OnlyOne) -> Iterator[tuple[str, str]]:
    """What one run has and the other lacks: (kinds, names of their sites), (kind, names of its series)."""
    kinds: dict[tuple[str, ...], list[str]] = {}
    for kind, names in one.sites.items():
        kinds.setdefault(names, []).append(kind)
    for names, alike in kinds.items():
        yield ", ".join(alike), listed(names)
    statistics: dict[str, list[str]] = {}
    for series in one.series:
        kind, _, statistic = series.partition(".")
        statistics.setdefault(kind, []).append(statistic)
    for kind, missing in statistics.items():
        yield f"series of {kind}", listed(missing)


def listed(names: tuple[str, ...] | list[str]) -> str:
    """The first NAMED of them, and how many more."""
    more = len(names) - NAMED
    shown = ", ".join(name(one) or "the model" for one in names[:NAMED])
    return f"{shown} and {count(more)} more" if more > 0 else shown


def finding_words(finding: Finding) -> str:
    return f"{finding.severity}: {presentable(describe.titled(finding), LONG)}, {describe.span(finding)}"


def said(fact: str) -> str:
    """A fact of one run, as long as it can be read."""
    return presentable(fact, LONG) if fact else "none"


def sides(difference: Difference) -> tuple[str, str]:
    """A fact as each run has it; of two commands what differs, and the words beside it."""
    if difference.what != "command" or not (difference.a and difference.b):
        return said(difference.a), said(difference.b)
    a, b = difference.a.split(" "), difference.b.split(" ")
    head = _common(a, b)
    tail = _common(a[head:][::-1], b[head:][::-1])
    told = (said(" ".join(_unlike(words, head, len(words) - tail))) for words in (a, b))
    return next(told), next(told)


def _common(a: list[str], b: list[str]) -> int:
    """How many words both begin with."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (one, other) in pairs if one != other), min(len(a), len(b)))


def _unlike(words: list[str], start: int, end: int) -> list[str]:
    """Words `start` to `end` with the first of all and the one on each side."""
    before = words[:start] if start < 3 else [words[0], "…", words[start - 1]]
    return [*before, *words[start:end], *(words[end:] if len(words) - end < 2 else ["…"])]


def next_commands(told: Comparison) -> list[str]:
    """The two reports."""
    return [f"stabdiag report {shlex.quote(run)}" for run in (told.a, told.b)]
