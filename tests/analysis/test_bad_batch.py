from __future__ import annotations

import numpy as np
import pytest

from stabdiag.analysis.catalogue import SIGNATURES
from stabdiag.core.event import Event
from stabdiag.core.finding import Severity
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of


@pytest.mark.parametrize(("level", "severity"), [(0.6, Severity.warning), (np.log(4), Severity.info)])
def test_no_batch_is_bad_to_a_model_that_ignores_its_input(level, severity):
    rng = np.random.default_rng(0)
    loss = level + 2.0 * np.exp(-np.arange(400) / 20) + 0.02 * rng.standard_normal(400)
    loss[250] += 3.0
    series = {"run.loss": loss, "targets.outlying": np.full(400, 2.0), "targets.max": loss + 0.3}
    classes = Event("loss", 0.0, data={"function": "cross-entropy", "classes": 4})
    run = run_of(series, sites={"targets": [Site("targets", "cross-entropy")]}, events=[classes])
    (finding,) = SIGNATURES["bad-batch"](run)
    assert (finding.severity, finding.onset_step) == (severity, 250)


def test_a_batch_is_measured_against_the_threshold_of_what_stands_out():
    rng = np.random.default_rng(0)
    surprise = np.clip(0.1 * rng.standard_normal(400), -0.2, 0.2)
    surprise[250] = 1.0
    loss = 2.0 + 0.05 * rng.standard_normal(400)
    series = {"run.loss": loss, "targets.surprise": surprise}
    (finding,) = SIGNATURES["bad-batch"](run_of(series, sites={"targets": ["cross-entropy"]}))
    assert finding.onset_step == 250
    assert finding.threshold == SIGNATURES["bad-batch"].thresholds["z"] < finding.value
