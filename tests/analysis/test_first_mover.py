from dataclasses import replace

import numpy as np
import pytest

from stabdiag.analysis.attribution import attribute, reconsider
from stabdiag.analysis.bands import bands
from stabdiag.analysis.catalogue import CAUSES, Cause, Weight
from stabdiag.analysis.culprit import culprit
from stabdiag.analysis.first_mover import LEAVES, MOVES, first_mover
from stabdiag.core.diagnosis import Batch, FirstMover
from stabdiag.core.event import Event
from stabdiag.core.finding import CauseRanked, Evidence, Finding, Severity
from stabdiag.core.run import RunInfo
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

STEPS = 400
LAYERS = 6


def healthy(every=1, seed=0, steps=STEPS):
    """All kinds, with trends as in training, and the steps of what is recorded every so often."""
    rng = np.random.default_rng(seed)
    at = np.arange(0, steps, every)

    def noise(rows, scale=0.1, columns=LAYERS):
        return np.exp(scale * rng.standard_normal((rows, columns)))

    growth = np.sqrt(1 + at / 50)[:, None]
    series = {
        "run.loss": 2 + 2 * np.exp(-np.arange(steps) / 80) + 0.03 * rng.standard_normal(steps),
        "run.grad_norm": noise(steps, 0.3, 1)[:, 0],
        "grad.norm": noise(steps, 0.3),
        "output.rms": noise(len(at), 0.03) * growth,
        "attention.max_logit": noise(len(at)) * 8 * growth,
        "update.ratio": 0.003 * noise(len(at)) / growth,
        "weight.norm": 10 * growth * np.ones(LAYERS),
        "optimizer.cosine": 0.1 * rng.standard_normal((len(at), LAYERS)),
    }
    return series, at


def recorded(series, at, **more):
    sparse = ("output", "attention", "update", "weight", "optimizer")
    return run_of(series, steps=dict.fromkeys(sparse, at), **more)


def test_the_statistic_that_left_its_band_first_is_told_with_its_lead_over_the_loss():
    series, at = healthy()
    series["attention.max_logit"][300:, 3] *= np.exp(np.arange(1, 101) / 5)
    series["output.rms"][308:, 3:] *= np.exp(np.arange(1, 93) / 5)[:, None]
    series["run.loss"][320:] += np.arange(1, 81) / 5
    mover = first_mover(recorded(series, at), 315, 390)
    assert (mover.series, mover.site) == ("attention.max_logit", "layers.3")
    assert 300 <= mover.step <= 306
    assert mover.step + mover.lead == pytest.approx(321, abs=2)
    assert mover.band[0] < series["attention.max_logit"][290, 3] < mover.band[1] < mover.value


@pytest.mark.parametrize("every", [1, 5, 10])
def test_what_moves_at_one_step_is_ordered_by_the_flow_of_the_forward_pass(every):
    """By the recorded order and not by the names: here the last column ran first."""
    series, at = healthy(every)
    series["output.rms"][at >= 301, :3] *= 50
    series["run.loss"][301:] += 2
    backwards = [Site("output", f"layers.{i}", order=LAYERS - i) for i in range(LAYERS)]
    mover = first_mover(recorded(series, at, sites={"output": backwards}), 301, 310)
    assert (mover.series, mover.site) == ("output.rms", "layers.2")
    assert mover.within < 301 <= mover.step


def test_what_moves_at_one_step_is_ordered_by_the_flow_of_the_backward_pass():
    series, at = healthy()
    series["grad.norm"][301:, :4] *= 300
    series["run.grad_norm"][301:] *= 300
    mover = first_mover(recorded(series, at), 301, 310)
    assert (mover.series, mover.site, mover.step) == ("grad.norm", "layers.3", 301)
    assert mover.lead is None


def test_at_one_step_the_forward_pass_comes_before_the_backward_pass_and_the_update():
    series, at = healthy()
    series["output.rms"][301:, 5] *= 50
    for later in ("grad.norm", "update.ratio", "weight.norm"):
        series[later][301:] *= 300
    series["run.grad_norm"][301:] *= 300
    assert first_mover(recorded(series, at), 301, 310).series == "output.rms"
    del series["output.rms"]
    assert first_mover(recorded(series, at), 301, 310).series == "grad.norm"


def test_of_two_that_are_seen_outside_at_once_the_one_that_grew_faster_left_first():
    series, at = healthy(10)
    series["output.rms"][at >= 310, 0] *= 2.6
    series["output.rms"][at >= 320, 0] *= 1e4
    series["output.rms"][at >= 310, 4] *= 1e4
    assert first_mover(recorded(series, at), 310, 330).site == "layers.4"


def test_a_value_that_is_not_finite_has_left_its_band():
    series, at = healthy()
    series["output.rms"][301:, 2] = np.nan
    series["output.nonfinite"] = np.isnan(series["output.rms"]).astype(float)
    mover = first_mover(recorded(series, at), 301, 310)
    assert (mover.series, mover.site, mover.step) == ("output.rms", "layers.2", 301)


def test_a_loss_that_jumps_alone_moved_first_itself():
    series, at = healthy()
    series["run.loss"][301:304] += 3
    mover = first_mover(recorded(series, at), 301, 302)
    assert (mover.series, mover.step, mover.lead) == ("run.loss", 301, 0)


def test_a_loss_that_jumps_before_anything_else_moved_first_itself():
    series, at = healthy()
    series["run.loss"][301:] += 3
    series["output.rms"][310:, 2] *= 1e3
    assert first_mover(recorded(series, at), 301, 320).series == "run.loss"


def test_a_learning_rate_that_turns_negative_moves_before_all_else():
    series, at = healthy()
    series["run.lr"] = 1e-3 * (300.5 - np.arange(STEPS)) / 300
    series["run.loss"][306:] += 3
    mover = first_mover(recorded(series, at), 306, 310)
    assert (mover.series, mover.step) == ("run.lr", 301)


def test_a_learning_rate_that_jumps_moves_before_all_else():
    series, at = healthy()
    series["run.lr"] = np.where(np.arange(STEPS) < 300, 1e-3, 1e-1)
    series["update.ratio"][at >= 300] *= 100
    series["run.loss"][303:] += 3
    mover = first_mover(recorded(series, at), 303, 310)
    assert (mover.series, mover.step, mover.lead) == ("run.lr", 300, 3)


def test_a_loss_scale_moves_when_it_falls_not_when_it_grows():
    series, at = healthy()
    grows = {**series, "run.loss_scale": np.where(np.arange(STEPS) < 300, 2.0**15, 2.0**16)}
    falls = {**series, "run.loss_scale": np.where(np.arange(STEPS) < 300, 2.0**15, 2.0**3)}
    assert first_mover(recorded(grows, at), 305, 310) is None
    assert first_mover(recorded(falls, at), 305, 310).series == "run.loss_scale"


@pytest.mark.parametrize("every", [1, 10])
def test_nothing_moves_where_nothing_happened(every):
    for seed in range(10):
        series, at = healthy(every, seed)
        assert first_mover(recorded(series, at), 300, 310) is None


def test_a_run_that_was_so_from_its_start_has_no_first_mover():
    series, at = healthy()
    assert first_mover(recorded(series, at), 3, 50) is None


def test_a_column_that_was_outside_all_along_is_no_mover():
    """Its past was no measure: it was outside as early as anybody looked."""
    series, at = healthy()
    series["weight.norm"][304:, 1] *= 50
    assert first_mover(recorded(series, at), 380, 385) is None


def test_a_band_follows_the_trend_and_widens_with_the_distance():
    steps = np.arange(100)
    past = np.exp(steps / 100)[:, None] * np.exp(0.02 * np.random.default_rng(0).standard_normal((100, 1)))
    future = np.exp(np.arange(100, 160) / 100)[:, None]
    band = bands(past, steps, future, np.arange(100, 160), least=6, floor=0.05)
    assert (band.excess < LEAVES).all()
    assert np.diff(np.log(band.high[:, 0]) - np.log(band.low[:, 0])).min() > 0
    assert (bands(past, steps, 5 * future, np.arange(100, 160), least=6, floor=0.05).excess > MOVES).all()


def test_a_short_past_makes_no_band():
    band = bands(np.ones((5, 1)), np.arange(5), np.full((1, 1), 99.0), [5], least=6, floor=0.1)
    assert np.isnan(band.excess).all()


def finding(sites, signature="loss-spike", onset=300, **more):
    return Finding(Severity.warning, 1.0, sites, onset, onset, onset, "it did", signature=signature, **more)


def moved(series, lead, step=300, within=299):
    return FirstMover(series, "layers.1", step, within, 9.0, (1.0, 2.0), lead)


@pytest.fixture
def two_causes(monkeypatch):
    weigh = lambda run, finding: Weight(0.4, "it may be")  # noqa: E731
    entries = {
        "growth": Cause("growth", "", (), weigh, ("attention.*",), (10, np.inf)),
        "batch": Cause("batch", "", ("skip-batch",), weigh, ("batch.*",), (0, 1)),
    }
    monkeypatch.setattr(CAUSES, "_entries", entries)
    monkeypatch.setattr(CAUSES, "_loaded", True)


@pytest.mark.parametrize(
    ("mover", "first"),
    [
        (moved("attention.max_logit", 40), "growth"),
        (moved("batch.absmax", 0), "batch"),
        (moved("weight.norm", 0), "batch"),  # too late for the one, in time for the other
        (moved("weight.norm", 30), "growth"),
    ],
)
def test_what_moved_first_and_how_long_before_the_loss_decides_between_causes(two_causes, mover, first):
    weighed = attribute(run_of({"run.loss": np.ones(3)}), finding(("run",)), ("growth", "batch"))
    assert weighed.causes[0].confidence == weighed.causes[1].confidence
    again = reconsider(weighed, mover).causes
    assert again[0].id == first
    assert again[0].confidence > 1.2 * again[1].confidence
    assert sum(c.confidence for c in reconsider(weighed, mover).causes) < 1


def test_what_moved_somewhere_in_a_gap_of_the_recording_contradicts_nobody(two_causes):
    weighed = attribute(run_of({"run.loss": np.ones(3)}), finding(("run",)), ("growth", "batch"))
    again = reconsider(weighed, moved("weight.norm", 0, within=280))
    assert [c.confidence for c in again.causes] == [c.confidence for c in weighed.causes]


MODEL = {
    "output": [
        Site("output", "net.2.attn.out.0", "Linear", order=0, source="/env/torch/nn/modules/linear.py:130"),
        Site(
            "output", "net.2.attn.out", "Sequential", order=0, source="/env/torch/nn/modules/container.py:9"
        ),
        Site("output", "net.2.attn", "Attention", order=1, source="/home/me/model.py:39"),
        Site("output", "Model", "Model", order=2, source="/home/me/model.py:99"),
    ],
    "attention": [Site("attention", "net.2.attn[h3]", "Attention", order=1, source="/home/me/model.py:39")],
    "grad": [Site("grad", "net.2.attn.out.0.weight", "Linear", (4, 4), order=0)],
    "batch": ["tokens"],
}


def model_run(**more):
    prints = np.where(np.isin(np.arange(400), (120, 300)), 77.0, np.arange(400) + 1000.0)
    series = {
        "output.rms": np.ones((400, 4)),
        "attention.max_logit": np.ones((400, 1)),
        "grad.norm": np.ones((400, 1)),
        "batch.fingerprint": prints,
    }
    return run_of(series, sites=MODEL, **more)


def test_a_head_is_blamed_by_number_with_the_line_of_its_class():
    seen = (Evidence("attention.max_logit", ("net.2.attn[h3]",)),)
    found = culprit(model_run(), finding(("net.2.attn[h3]",), evidence=seen), None, None)
    assert (found.module, found.head, found.source) == ("net.2.attn", 3, "/home/me/model.py:39")
    assert found.parameter == ""


def test_a_parameter_is_blamed_with_the_nearest_class_that_a_person_can_change():
    found = culprit(model_run(), finding(("net.2.attn.out.0.weight",)), None, None)
    assert (found.module, found.module_type) == ("net.2.attn.out.0", "Linear")
    assert found.parameter == "net.2.attn.out.0.weight"
    assert found.source == "/home/me/model.py:39"


def test_a_batch_is_blamed_by_its_fingerprint_where_the_cause_is_a_batch():
    cause = CauseRanked("corrupt-batch", 0.8, "it was")
    found = culprit(model_run(), finding(("run",)), cause, moved("output.rms", 0))
    assert found.batch == Batch(300, 77, (120,))
    assert found.module == ""
    assert culprit(model_run(), finding(("tokens",)), cause, None) == found  # an input is no module
    assert culprit(model_run(), finding(("run",)), replace(cause, id="schedule-bug"), None) is None


def test_a_fault_of_the_run_has_the_place_of_what_moved_before_the_loss():
    early = replace(moved("attention.max_logit", 14), site="net.2.attn[h3]")
    assert culprit(model_run(), finding(("run",)), None, early).module == "net.2.attn"
    assert culprit(model_run(), finding(("run",)), None, replace(early, lead=0)) is None


def test_a_rank_is_blamed_where_it_is_alone_with_a_nonfinite_value():
    events = [Event("nonfinite", 0.0, 300, 2, {"what": "gradient", "sites": ["net.2.attn.out.0.weight"]})]
    world = model_run(events=events, info=RunInfo(world_size=4, processes=4))
    assert culprit(world, finding(("net.2.attn.out.0.weight",)), None, None).rank == 2
    alone = model_run(events=events)
    assert culprit(alone, finding(("net.2.attn.out.0.weight",)), None, None).rank is None
    assert culprit(world, finding(("run",), facts={"rank": 3.0}), None, None).rank == 3
