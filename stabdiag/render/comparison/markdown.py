"""A comparison as GitHub-flavoured markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from stabdiag.core.comparison import Comparison
from stabdiag.render.comparison import words
from stabdiag.render.markdown import code, escaped
from stabdiag.render.numbers import count
from stabdiag.render.terminal import speakable


def render_markdown(told: Comparison) -> str:
    return "".join(f"{speakable(line, 'utf-8')}\n" for line in _lines(told))


def _lines(told: Comparison) -> Iterator[str]:
    yield f"## {escaped(words.verdict_sentence(told))}"
    yield from ("", "| | run | steps |", "|---|---|---|")
    for name, path, steps in (("A", told.a, told.steps[0]), ("B", told.b, told.steps[1])):
        yield f"| {name} | {code(path)} | {count(steps)} |"
    yield from ("", escaped(f"Identical {words.identical(told)}."))
    if words.first_bit(told):
        yield from ("", escaped(f"First difference: {words.first_bit(told)}."))
    if told.first and told.verdict != "unpaired":
        last = min(told.steps) - 1
        rows = [
            f"{words.at_step(p)}: {'; '.join(filter(None, (words.what_parted(p), words.extent(p, last))))}"
            for p in (told.first, *told.followed)
        ]
        yield from _section("Where they part, in order", rows)
    if told.verdict != "identical":
        levels = [f"{words.level_place(level)}: {words.level_words(level)}" for level in told.levels]
        yield from _section("Where they settle, over the last half of the steps", levels)
    if told.settings:
        yield from ("", "### What is not the same of both", "", "| | A | B |", "|---|---|---|")
    for difference in told.settings:
        a, b = map(code, words.sides(difference))
        yield f"| {escaped(difference.what)} | {a} | {b} |"
    for name, only in (("A", told.only_a), ("B", told.only_b)):
        items = [*map(words.finding_words, only.findings), *(": ".join(pair) for pair in words.only(only))]
        yield from _section(f"Only in {name}", items)
    yield from _section("What limits the comparison", told.notes)


def _section(title: str, items: Iterable[str]) -> Iterator[str]:
    items = list(items)
    if items:
        yield from ("", f"### {title}", "", *(f"- {escaped(item)}" for item in items))
