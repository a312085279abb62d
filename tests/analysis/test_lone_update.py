"""One matrix whose steps are out of proportion is told, with its own rate as the cure."""

from __future__ import annotations

import numpy as np
import pytest

import stabdiag
from stabdiag.analysis.examples import weights
from stabdiag.analysis.lone_update import against_the_start, lone_update
from stabdiag.analysis.updates import updates
from stabdiag.core.event import Event
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

STEPS = np.arange(0, 400, 10)


def run(ratio, norm=None, optimizer="AdamW"):
    series = {"update.ratio": ratio, "run.loss": np.linspace(4, 2, 400)}
    sites, steps = {"update": weights("update", ratio.shape[1])}, {"update": STEPS}
    if norm is not None:
        series["weight.norm"], steps["weight"] = norm, STEPS
        sites["weight"] = [Site("weight", s.name, shape=(64, 64)) for s in sites["update"]]
    event = Event("optimizer", 0.0, data={"name": optimizer, "groups": [{"lr": 1e-3}]})
    return run_of(series, sites=sites, steps=steps, events=[event])


def usual():
    return 0.005 * np.exp(0.2 * np.random.default_rng(0).standard_normal((40, 5)))


def found(run):
    taken = updates(run)
    return lone_update(run, taken, against_the_start(run, taken), 0.1, 10.0, 3)


def test_what_a_layer_was_replaced_by_is_the_sum_of_its_ratios_over_all_steps():
    ratio = usual()
    ratio[:, 2] = 0.2
    lone = found(run(ratio))
    assert lone.sites[0] == weights("update", 5)[2].name
    assert lone.replaced == pytest.approx(0.2 * 400, rel=0.01)


def test_a_matrix_that_began_far_below_the_others_finds_its_scale():
    ratio = usual()
    ratio[:, 2] = 0.2
    norm = np.full((40, 5), 8.0)
    assert found(run(ratio, norm)) is not None
    norm[:, 2] = 0.08
    assert found(run(ratio, norm)) is None


def test_weights_that_have_decayed_count_by_what_they_began_with():
    ratio = np.full((40, 5), 0.3)
    norm = 8.0 * np.exp(-2.0 * np.arange(40))[:, None] * np.ones(5)
    signatures = {f.signature for f in stabdiag.diagnose(run(ratio, norm)).findings if f.severity}
    assert "update-ratio-high" not in signatures
    signatures = {f.signature for f in stabdiag.diagnose(run(ratio, np.full((40, 5), 8.0))).findings}
    assert "update-ratio-high" in signatures


def test_the_cure_is_a_lower_rate_for_that_layer_alone():
    ratio = usual()
    ratio[:, 2] = 0.2
    diagnosis = stabdiag.diagnose(run(ratio))
    incident = next(i for i in diagnosis.incidents if diagnosis.findings[i.root].facts.get("others"))
    assert incident.cause.id == "learning-rate-too-high"
    name = weights("update", 5)[2].name
    assert incident.fixes[0].id == "lower-learning-rate"
    assert repr(name) in incident.fixes[0].code
    assert not incident.fixes[0].runtime
