"""When, where and how gravely: what the examples beside the signatures do not say."""

import numpy as np
import pytest

from stabdiag.analysis.aftermath import after
from stabdiag.analysis.catalogue import SIGNATURES
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.losscurve import loss_curve
from stabdiag.core.event import Event
from stabdiag.core.finding import Severity
from stabdiag.core.run import RunInfo
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

RNG = np.random.default_rng


def matrices(kind, count, shape=(64, 64)):
    return [Site(kind, f"layers.{i}.weight", "Linear", shape, order=i) for i in range(count)]


def falling(count=400, seed=0, noise=0.05):
    return 2.0 + 2.8 * np.exp(-np.arange(count) / 60) + noise * RNG(seed).standard_normal(count)


def only(name, run):
    (finding,) = SIGNATURES[name](run)
    return finding


def none(name, run):
    return list(SIGNATURES[name](run)) == []


# schedule-jump


def test_a_jump_is_told_of_the_parameter_group_that_jumps():
    rate = np.full((400, 2), 1e-3)
    rate[200:, 1] *= 30
    loss = falling()
    loss[201:260] += 1.0
    run = run_of(
        {"run.lr": rate, "run.loss": np.c_[loss, np.full(400, np.nan)]},
        sites={"run": ["run", "AdamW.0.1"]},
    )
    finding = only("schedule-jump", run)
    assert (finding.sites, finding.onset_step) == (("AdamW.0.1",), 200)
    assert finding.severity == Severity.warning


def test_a_jump_that_does_no_harm_is_info_and_one_that_loses_the_run_is_critical():
    rate = np.r_[np.full(200, 1e-3), np.full(200, 1e-1)]
    assert only("schedule-jump", run_of({"run.lr": rate, "run.loss": falling()})).severity == Severity.info
    lost = falling()
    lost[201:] += 2.5
    assert only("schedule-jump", run_of({"run.lr": rate, "run.loss": lost})).severity == Severity.critical


def test_a_group_that_is_frozen_from_the_start_has_no_fault():
    assert none("schedule-jump", run_of({"run.lr": np.zeros(400), "run.loss": falling()}))


def test_a_schedule_is_said_to_run_ahead_only_once_the_run_has_ended():
    rate = 1e-3 * np.maximum(1 - np.arange(400) / 100, 1e-3)
    series = {"run.lr": rate, "run.loss": falling(), "run.micro_batches": np.full(400, 4.0)}
    ended = only("schedule-jump", run_of(series, info=RunInfo(ended=1.0)))
    assert "once a micro-batch" in ended.message
    assert none("schedule-jump", run_of(series))


# lr-starvation


def test_starvation_begins_where_the_rate_ran_out():
    rate = 1e-2 * np.where(np.arange(600) < 150, 1.0, 1e-4)
    loss = 2.0 + 2.8 * np.exp(-np.minimum(np.arange(600), 150) / 150) + 0.03 * RNG(0).standard_normal(600)
    finding = only("lr-starvation", run_of({"run.lr": rate, "run.loss": loss}))
    assert finding.onset_step == 150
    assert finding.severity == Severity.warning
    assert finding.facts["budget_left"] == pytest.approx(0.75)


def test_a_rate_that_falls_on_is_told_by_its_first_value_and_its_last():
    loss = 2.0 + 2.8 * np.exp(-np.minimum(np.arange(600), 60) / 60) + 0.03 * RNG(0).standard_normal(600)
    rate = 2e-3 * 0.5 ** (np.arange(600) // 4)
    told = only("lr-starvation", run_of({"run.lr": rate, "run.loss": loss})).message
    assert "3.1e-05 at step 24, 1.56 % of its peak, and falls on to" in told
    assert "since step" not in told


def test_a_rate_that_ran_out_after_the_loss_had_come_to_rest_is_info():
    rate = 1e-2 * np.where(np.arange(600) < 400, 1.0, 1e-4)
    finding = only("lr-starvation", run_of({"run.lr": rate, "run.loss": falling(600)}))
    assert finding.severity == Severity.info


def test_a_learning_rate_below_zero_is_not_one_that_ran_out():
    rate = np.r_[np.full(200, 1e-3), np.full(400, -1e-3)]
    assert none("lr-starvation", run_of({"run.lr": rate, "run.loss": falling(600)}))


# lr-divergence, warmup-end-instability


def lost_run(ratio_at, rise_at, ratio=0.3, count=400):
    loss = falling(count)
    loss[rise_at:] += np.minimum(3.0, 0.1 * np.arange(count - rise_at))
    ratios = 0.01 * np.exp(0.2 * RNG(1).standard_normal((count, 4)))
    ratios[ratio_at : rise_at + 5] *= ratio / 0.01
    ratios[ratio_at : rise_at + 5, 2] *= 5
    return {"run.loss": loss, "update.ratio": ratios}, {"update": matrices("update", 4)}


def test_divergence_begins_with_the_first_long_step_and_names_the_layer_that_moved_most():
    series, sites = lost_run(ratio_at=190, rise_at=200)
    finding = only("lr-divergence", run_of(series, sites=sites))
    assert finding.onset_step == 190
    assert finding.sites[0] == "layers.2.weight"
    assert finding.severity == Severity.critical


def test_a_corrupt_batch_before_the_long_steps_is_left_to_its_own_signature():
    series, sites = lost_run(ratio_at=200, rise_at=200)
    series["batch.absmax"] = np.where(np.arange(400) == 199, 500.0, 3.0)
    assert none("lr-divergence", run_of(series, sites={**sites, "batch": ["x"]}))


def test_a_rise_long_after_the_warm_up_is_not_blamed_on_it():
    series, sites = lost_run(ratio_at=190, rise_at=200)
    for warm, told in ((100, True), (40, False)):
        rate = 0.1 * np.minimum(1.0, (np.arange(400) + 1) / warm)
        found = list(SIGNATURES["warmup-end-instability"](run_of({**series, "run.lr": rate}, sites=sites)))
        assert bool(found) is told


# edge-of-stability, oscillating-plateau, noise-dominated


def curved(ratio, loss):
    series = {"run.loss": loss, "curvature.sharpness_ratio": ratio}
    return run_of(series, sites={"curvature": ["run"]}, steps={"curvature": np.arange(len(ratio)) * 50})


def test_the_edge_alone_is_info_and_beyond_it_with_a_rising_loss_is_not():
    rising = falling(500, noise=0.01)
    rising[250:] += 0.01 * np.arange(250)
    at_edge = only("edge-of-stability", curved(np.full(10, 1.0), rising))
    beyond = only("edge-of-stability", curved(np.linspace(0.5, 2.5, 10), rising))
    calm = only("edge-of-stability", curved(np.linspace(0.5, 2.5, 10), falling(500)))
    assert at_edge.severity == calm.severity == Severity.info
    assert beyond.severity > Severity.info


def test_measured_curvature_far_below_the_edge_outweighs_gradients_that_turn():
    loss = falling(500, noise=0.01)
    loss[250:] += 0.01 * np.arange(250)
    series = {"run.loss": loss, "run.grad_cosine": np.r_[np.full(250, 0.5), np.full(250, -0.9)]}
    assert only("edge-of-stability", run_of(series)).severity > Severity.info
    flat = {**series, "curvature.sharpness_ratio": np.full(1, 0.1)}
    assert none("edge-of-stability", run_of(flat, steps={"curvature": [300]}, sites={"curvature": ["run"]}))


@pytest.mark.parametrize(("signal", "noise"), [(0.005, 199), (0.02, 49)])
def test_the_cosine_of_gradients_gives_noise_over_signal(signal, noise):
    cosine = signal + 0.02 * RNG(0).standard_normal(2000)
    finding = only("noise-dominated", run_of({"run.loss": falling(2000), "run.grad_cosine": cosine}))
    assert finding.facts["noise_to_signal"] == pytest.approx(noise, rel=0.15)
    assert finding.severity == Severity.info


def test_noise_that_drowns_its_own_measure_is_told_as_a_bound():
    cosine = -0.001 + 0.1 * RNG(0).standard_normal(2000)
    finding = only("noise-dominated", run_of({"run.loss": falling(2000), "run.grad_cosine": cosine}))
    assert "more than 20 times" in finding.message
    assert finding.value == finding.threshold == pytest.approx(20)
    assert "noise_to_signal" not in finding.facts


def test_a_cut_of_the_batch_dates_the_noise_and_gives_its_sizes():
    batch = np.where(np.arange(600) < 250, 32.0, 2.0)
    loss = falling(600) + np.where(batch < 3, 0.8, 0.0)
    series = {"run.loss": loss, "run.grad_cosine": np.full(600, 0.01), "run.samples": batch}
    finding = only("noise-dominated", run_of(series))
    assert finding.onset_step == 250
    assert (finding.facts["samples_before"], finding.facts["samples"]) == (32.0, 2.0)
    assert finding.severity == Severity.warning


def test_what_was_measured_too_seldom_is_declined_with_a_reason():
    cosine = np.where(np.arange(400) % 50 == 0, 0.01, np.nan)
    for name in ("noise-dominated", "oscillating-plateau"):
        with pytest.raises(NotEvaluable, match="known at only"):
            list(SIGNATURES[name](run_of({"run.loss": falling(), "run.grad_cosine": cosine})))


# clip-saturation


def clipped(optimizer, limit=0.01, ratio=2e-4, count=400):
    norm = np.exp(0.3 * RNG(0).standard_normal(count))
    series = {
        "run.loss": 4.8 - 0.002 * np.arange(count) + 0.02 * RNG(1).standard_normal(count),
        "run.grad_norm": norm,
        "run.clipped_grad_norm": np.minimum(norm, limit),
        "update.ratio": np.full((count, 3), ratio),
    }
    event = Event("optimizer", 0.0, data={"name": optimizer, "groups": [{"lr": 0.1}]})
    return run_of(series, sites={"update": matrices("update", 3)}, events=[event])


def test_saturated_clipping_costs_only_where_nothing_divides_by_the_gradients():
    assert only("clip-saturation", clipped("SGD")).severity == Severity.warning
    assert not list(SIGNATURES["clip-saturation"](clipped("AdamW")))
    assert only("clip-saturation", clipped("SGD")).facts["clip_factor"] == pytest.approx(0.01, rel=0.2)


# width-misparametrization


def test_layers_of_one_width_cannot_tell_how_steps_scale():
    series = {"run.loss": falling(), "update.ratio": np.full((400, 4), 0.01)}
    with pytest.raises(NotEvaluable, match="several widths"):
        list(SIGNATURES["width-misparametrization"](run_of(series, sites={"update": matrices("update", 4)})))


# weight-norm-drift


def test_growth_is_dated_by_where_it_begins():
    norm = np.full((300, 3), 4.0)
    norm[:, 1] *= np.exp(0.1 * np.maximum(np.arange(300) - 150, 0))
    run = run_of({"weight.norm": norm, "run.loss": falling(300)}, sites={"weight": matrices("weight", 3)})
    finding = only("weight-norm-drift", run)
    assert finding.sites == ("layers.1.weight",)
    assert 150 <= finding.onset_step <= 153
    assert finding.severity == Severity.info


def test_a_loss_that_swings_once_it_was_thrown_up_is_up():
    loss = np.full(200, 1.0) + 0.01 * RNG(0).standard_normal(200)
    loss[:20] = 3.0
    loss[100:120:2] += 0.5
    loss[101:121:4] += 0.5
    assert after(loss_curve(run_of({"run.loss": loss})), 100).bad


def test_a_rate_too_low_for_the_fastest_matrix_is_so_where_gradients_vanish():
    ratio = np.full((400, 6), 1e-6)
    gradient = np.tile(4.0 ** np.arange(6), (400, 1))
    series = {"run.loss": 2.3 + 0.01 * RNG(0).standard_normal(400), "run.lr": np.full(400, 1e-7)}
    series |= {"update.ratio": ratio, "grad.norm": gradient}
    sites = {"update": matrices("update", 6), "grad": matrices("grad", 6)}
    assert only("lr-starvation", run_of(series, sites=sites)).severity == Severity.warning
    ratio[:, -1] = 1e-2
    assert not list(SIGNATURES["lr-starvation"](run_of(series, sites=sites)))


def test_growing_weights_that_take_the_mean_logit_with_them_have_a_consequence():
    norm = np.full((400, 3), 4.0)
    norm[:, 2] *= np.exp(0.05 * np.maximum(np.arange(400) - 200, 0))
    loss = np.concatenate([falling(250), np.linspace(2.0, 20.0, 150)])
    series = {"weight.norm": norm, "run.loss": loss, "logits.mean": -np.maximum(norm[:, 2] - 4.0, 0.0)}
    sites = {"weight": matrices("weight", 3), "logits": [Site("logits", "head")]}
    assert only("weight-norm-drift", run_of(series, sites=sites)).severity == Severity.warning


def test_a_loss_thrown_up_at_once_is_not_hidden_by_how_it_scatters_later():
    ratio = np.full((200, 3), 0.01)
    ratio[:3] = 2.0
    loss = np.full(200, 20.0)
    loss[0], loss[50:] = 2.0, 1e4 * RNG(0).exponential(1.0, 150)
    # Of opposed players nobody knows who is harmed.
    sites = {"update": matrices("update", 3), "run": [Site("run", "run"), Site("run", "Adam.1.0")]}
    series = {"update.ratio": ratio, "run.loss": np.column_stack([loss, np.full(200, np.nan)])}
    assert only("update-ratio-high", run_of(series, sites=sites)).severity == Severity.warning
