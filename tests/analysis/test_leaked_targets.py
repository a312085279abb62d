"""What is learned in training and is of no use when evaluated."""

import numpy as np
import pytest

from stabdiag.analysis.catalogue import CAUSES, FIXES, SIGNATURES
from stabdiag.analysis.diagnose import diagnose
from stabdiag.core.event import Event
from stabdiag.core.finding import Severity
from stabdiag.core.run import KindData, Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

STEPS = np.arange(400)
TRAINED = 0.01 + 2.8 * np.exp(-STEPS / 20)
EVALUATED = 3.9 + 0.1 * np.arange(5)
CONSTANT = 2.65


def run(loss=TRAINED, evaluated=EVALUATED, function="cross-entropy", **series):
    at = np.linspace(60, 399, len(evaluated)).astype(int)
    return run_of(
        {
            "run.loss": loss,
            "evaluation.loss": evaluated,
            "targets.constant": np.full(400, CONSTANT),
            **series,
        },
        sites={"evaluation": [Site("evaluation", function)], "targets": ["cross-entropy"]},
        steps={"evaluation": at},
        events=[Event("loss", 0.0, data={"function": "cross-entropy", "classes": 16})],
    )


def told(run):
    return [f for f in SIGNATURES["overfitting"](run) if "constant" in f.facts]


def test_a_solved_training_that_no_evaluation_confirms_is_put_down_to_leaked_targets():
    of = run()
    (finding,) = [f for f in diagnose(of).findings if f.signature == "overfitting"]
    assert (finding.severity.name, finding.onset_step) == ("warning", 60)
    assert finding.causes[0].id == "wrong-targets"
    assert "a missing shift or mask" in finding.causes[0].because
    assert "targets of other samples" in FIXES[CAUSES["wrong-targets"].fixes[0]].propose(of, finding).text


@pytest.mark.parametrize("example", SIGNATURES["overfitting"].fires, ids=lambda e: e.__name__)
def test_the_unit_of_all_losses_together_changes_nothing(example):
    of = example(np.random.default_rng(0))
    kinds = {
        name: KindData(
            kind.steps,
            kind.times,
            kind.sites,
            {k: 1024 * v.astype(np.float32) for k, v in kind.values.items()},
        )
        for name, kind in of.kinds.items()
    }
    before, after = (list(SIGNATURES["overfitting"](r)) for r in (of, Run(of.info, kinds, of.events)))
    assert [(f.severity, f.onset_step, sorted(f.facts)) for f in before] == [
        (f.severity, f.onset_step, sorted(f.facts)) for f in after
    ]


def test_three_evaluations_are_enough():
    assert told(run(evaluated=EVALUATED[:3]))


@pytest.mark.parametrize(
    "of",
    [
        run(loss=0.4 + TRAINED),
        run(evaluated=EVALUATED - 1.3),
        run(evaluated=EVALUATED[::-1]),
        run(function="mean-squared-error"),
    ],
    ids=[
        "training not solved", "evaluations of some use", "evaluations improve", "another loss evaluated",
    ],
)  # fmt: skip
def test_a_gap_that_another_reason_explains_is_not_told(of):
    assert not told(of)


@pytest.mark.parametrize(
    "of",
    [
        run(loss=0.01 + 2.8 * np.exp(-STEPS / 110), evaluated=3.9 + 0.01 * np.arange(20)),
        run(**{"batch.fingerprint": (STEPS % 16).astype(float)}),
    ],
    ids=["learned over many evaluations", "batches that come again"],
)
def test_what_may_have_been_learned_by_heart_is_a_note(of):
    assert [finding.severity for finding in told(of)] == [Severity.info]


def test_a_gap_that_opens_beside_evaluations_that_stay_is_a_note():
    evaluated = 1.45 + 0.6 * np.exp(-np.arange(20) / 2) + 0.01 * (np.arange(20) % 3)
    falling = 2.3 - 0.0045 * STEPS

    def found(of):
        return list(SIGNATURES["overfitting"](of))

    (finding,) = found(run(loss=falling, evaluated=evaluated))
    assert (finding.severity, finding.onset_step) == (Severity.info, int(np.linspace(60, 399, 20)[10]))
    assert not found(run(loss=falling, evaluated=evaluated - 0.005 * np.arange(20)))
    assert not found(run(loss=np.maximum(falling, 1.2), evaluated=evaluated))
