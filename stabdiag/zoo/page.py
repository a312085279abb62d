"""The measured accuracy as a page of markdown, `docs/accuracy.md`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import jinja2
import numpy as np

from stabdiag.zoo.outcome import NEAR, Outcome
from stabdiag.zoo.rivals import Rival
from stabdiag.zoo.score import Rate, Score, Share, proper

TEMPLATE = jinja2.Environment(
    loader=jinja2.PackageLoader("stabdiag.zoo"), trim_blocks=True, lstrip_blocks=True, autoescape=False
)


def page(
    parts: Mapping[str, Score], rivals: Sequence[Rival], picture: str, verified: Mapping[str, Share]
) -> str:
    """`parts` by their names, the judged one last; `rivals` and the details are of that one. `picture` is
    where the confusion matrix lies, as the page links to it. `verified` are the fixes that were tried, by
    how."""
    judged = list(parts.values())[-1]
    return TEMPLATE.get_template("accuracy.md").render(
        parts=list(parts),
        goals=_goals(parts),
        judged=judged,
        rows=[row for row in judged.rows if row.found + row.missed],
        false_rows=[row for row in judged.rows if row.false],
        missed=[_told(o) for o in judged.faults if not o.right],
        alarms=[_told(o) for o in judged.outcomes if o.false],
        doses=_doses(parts.values()),
        rivals=rivals,
        picture=picture,
        verified=verified,
        share=_share,
        rate=_rate,
        figure=_figure,
    )


def _goals(parts: Mapping[str, Score]) -> list[tuple[str, str, list[str], str]]:
    """What is measured, what is aimed at, its value in each part, and the last less the first."""
    scores = list(parts.values())

    def line(
        name: str, goal: str, values: Iterable[float], texts: Iterable[str]
    ) -> tuple[str, str, list[str], str]:
        numbers = list(values)
        difference = f"{numbers[-1] - numbers[0]:+.2f}" if len(numbers) > 1 else ""
        return name, goal, list(texts), difference

    def shares(name: str, goal: str, found: Sequence[Share]) -> tuple[str, str, list[str], str]:
        return line(name, goal, (s.value for s in found), map(_share, found))

    return [
        line("macro F1", "≥ 0.95", (s.macro_f1 for s in scores), (f"{s.macro_f1:.2f}" for s in scores)),
        shares("precision", "≥ 0.95", [s.precision for s in scores]),
        shares("recall", "", [s.recall for s in scores]),
        shares("named first", "", [s.first for s in scores]),
        shares("site, first told", "≥ 0.90", [s.site(1) for s in scores]),
        shares(f"site, among {NEAR}", "", [s.site(NEAR) for s in scores]),
        shares("onset in the truth's window", "≥ 0.90", [s.onset for s in scores]),
        shares("cause, first told", "≥ 0.80", [s.cause(1) for s in scores]),
        shares(f"cause, among {NEAR}", "≥ 0.95", [s.cause() for s in scores]),
        shares("right fix, first told", "", [s.fix(1) for s in scores]),
        shares(f"right fix, among {NEAR}", "", [s.fix() for s in scores]),
        shares("earlier than the loss alone", "≥ 0.80", [s.lead_share for s in scores]),
        line(
            "false alarms in 1,000 healthy steps", "0",
            (s.false_alarms.value for s in scores), (_rate(s.false_alarms) for s in scores),
        ),
    ]  # fmt: skip


def _doses(scores: Iterable[Score]) -> list[tuple[str, str]]:
    """Each fault, and the share found at each dose, of all parts together."""
    everything = Score([outcome for score in scores for outcome in score.outcomes])
    return [
        (name, ", ".join(f"{dose:g}: {share.hits}/{share.of}" for dose, share in found))
        for name, found in everything.by_dose().items()
    ]


def _told(outcome: Outcome) -> tuple[str, str, str]:
    said = ", ".join(f"{told.root} ({told.severity}, from {told.onset})" for told in outcome.incidents[:NEAR])
    return outcome.case.name, proper(outcome), said or "nothing"


def _share(share: Share) -> str:
    return f"{share.value:.2f} ({share.hits}/{share.of})" if share.of else "–"


def _rate(rate: Rate) -> str:
    low, high = rate.interval
    return f"{_figure(rate.value)} [{_figure(low)}, {_figure(high)}]"


def _figure(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2g}"


def median_lead(score: Score) -> float:
    finite = [steps for steps in score.leads if math.isfinite(steps)]
    return float(np.median(finite)) if finite else float("nan")
