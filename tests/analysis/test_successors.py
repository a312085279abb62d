"""An optimizer that takes the place of another trains alone."""

import numpy as np
import pytest

from stabdiag.analysis.diagnose import diagnose
from stabdiag.analysis.losscurve import several_optimizers
from stabdiag.analysis.successors import successors
from stabdiag.core.event import Event
from stabdiag.core.finding import Severity
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

STEPS = 400


def optimizer(index, step, parameters=10):
    groups = [{"lr": 1e-3, "betas": [0.9, 0.999], "parameters": parameters}]
    return Event("optimizer", 0.0, step, data={"index": index, "name": "AdamW", "groups": groups})


def run(at, parameters=10, rate=3e-2):
    rng = np.random.default_rng(0)
    loss = 1.0 + 2.0 * np.exp(-np.arange(STEPS) / 40) + 0.05 * rng.standard_normal(STEPS)
    loss[at + 1 :] += 3.0
    rates = np.column_stack([np.full(STEPS, 1e-3), np.where(np.arange(STEPS) < at, np.nan, rate)])
    return run_of(
        {"run.loss": loss, "run.lr": rates},
        sites={"run": [Site("run", "run"), Site("run", "AdamW.1.0")]},
        events=[optimizer(0, 0), optimizer(1, at, parameters)],
    )


def test_a_successor_is_no_second_player():
    assert [later.step for later in successors(run(200))] == [200]
    assert not several_optimizers(run(200))


@pytest.mark.parametrize(
    ("at", "parameters"), [(0, 10), (200, 7)], ids=["from the start", "of other weights"]
)
def test_two_that_train_side_by_side_are(at, parameters):
    assert several_optimizers(run(at, parameters))


def test_the_rate_of_a_successor_goes_on_from_that_of_the_one_before():
    found = [f for f in diagnose(run(200)).findings if f.signature == "schedule-jump"]
    assert [(f.onset_step, f.severity > Severity.info) for f in found] == [(200, True)]
