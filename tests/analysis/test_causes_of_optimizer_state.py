"""What speaks for and against the causes of step size and optimizer state, and how their fixes are worded."""

import ast

import numpy as np
import pytest

from stabdiag.analysis.catalogue import CAUSES, FIXES
from stabdiag.core.event import Event
from stabdiag.core.finding import Finding, Severity
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

STEPS = 200
NAMES = [f"layers.{i}.weight" for i in range(4)]


def sites(kind, module_type="Linear"):
    return [Site(kind, name, module_type, (64, 64), order=i) for i, name in enumerate(NAMES)]


def optimizer(name="AdamW", **settings):
    groups = [{"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0, **settings}]
    if name == "SGD":
        groups = [{"lr": 0.1, "momentum": 0.9}]
    return Event("optimizer", 0.0, data={"name": name, "groups": groups, "parameters": 4})


def finding(signature, onset=100, last=STEPS - 1, at=(NAMES[1],), **facts):
    return Finding(Severity.warning, 1.0, at, onset, onset, last, "it did", facts=facts, signature=signature)


def support(cause, run, of):
    weight = CAUSES[cause].weigh(run, of)
    return weight.support if weight else 0.0


def proposed(fix, run, of):
    change = FIXES[fix].propose(run, of)
    if change:
        ast.parse(change.code)
    return change


def clipped(limit, scale=1.0, name="SGD", grown=1.0):
    norm = np.full(STEPS, 1.0 * scale)
    norm[100:] *= grown
    series = {
        "run.grad_norm": norm,
        "run.clipped_grad_norm": np.minimum(norm, limit),
        "run.lr": np.full(STEPS, 0.1),
    }
    if scale > 1:
        series["run.loss_scale"] = np.full(STEPS, scale)
    return run_of(series, events=[optimizer(name)])


def test_a_limit_far_below_the_norm_is_too_tight():
    of = finding("clip-saturation", at=("run",))
    assert support("clip-too-tight", clipped(0.01), of) > 0.8
    assert support("clip-too-tight", clipped(2.0), of) == 0.0


def test_a_limit_was_right_where_the_gradients_have_grown_since():
    of = finding("clip-saturation", at=("run",))
    assert support("clip-too-tight", clipped(1.0, grown=100.0), of) < 0.4


def test_a_limit_is_raised_to_a_little_above_the_norm_and_the_rate_lowered_with_it():
    of = finding("clip-saturation", at=("run",), update_ratio=1e-3)
    change = proposed("loosen-clipping", clipped(0.01), of)
    assert "clip at 1 instead of 0.01" in change.text
    assert "learning rate 0.1 → 0.01, as steps get 100 times longer" in change.text
    assert "max_grad_norm=1" in change.text
    assert change.runtime == {"clip_norm": 1.0}


def test_gradients_that_were_clipped_with_their_scale_are_unscaled_first():
    of = finding("clip-saturation", at=("run",), unscaled=1.0)
    run = clipped(1.0, scale=65536.0, name="Adam")
    assert support("clip-too-tight", run, of) > 0.8
    assert "scaler.unscale_(optimizer)" in proposed("loosen-clipping", run, of).code


def test_nothing_is_loosened_that_does_not_clip():
    assert proposed("loosen-clipping", clipped(2.0), finding("clip-saturation", at=("run",))) is None


def dominated(share=0.9, gradient=1e-5, eps=1e-3, name="AdamW"):
    series = {
        "optimizer.eps_share": np.full((STEPS, 4), share),
        "optimizer.step": np.full((STEPS, 4), 0.03),
        "grad.norm": np.full((STEPS, 4), gradient * 64),
    }
    return run_of(
        series,
        sites={"optimizer": sites("optimizer"), "grad": sites("grad")},
        events=[optimizer(name, eps=eps)],
    )


def test_an_epsilon_above_the_second_moment_is_blamed_and_lowered_to_a_thousandth_of_the_gradients():
    of = finding("adam-eps-dominated")
    assert support("optimizer-epsilon", dominated(), of) > 0.85
    assert support("optimizer-epsilon", dominated(share=0.01), of) == 0.0
    change = proposed("lower-epsilon", dominated(), of)
    assert "epsilon 0.001 → 1e-08: the gradients have 1e-05 in rms" in change.text
    assert "adam_epsilon=1e-08" in change.text
    assert change.runtime == {"eps": pytest.approx(1e-8)}


def test_an_epsilon_is_raised_to_a_tenth_of_the_gradients_where_a_moment_was_stale():
    change = proposed(
        "raise-epsilon", dominated(gradient=1e-3, eps=1e-8), finding("adam-stale-second-moment")
    )
    assert change.runtime == {"eps": pytest.approx(1e-4)}
    assert proposed("raise-epsilon", dominated(), finding("adam-eps-dominated")) is None


def test_epsilon_is_told_in_the_words_of_the_optimizer():
    of = finding("adam-eps-dominated")
    change = proposed("lower-epsilon", dominated(name="RMSprop"), of)
    assert "torch.optim.RMSprop(model.parameters(), eps=1e-08)" in change.code
    assert "adam" not in change.text
    change = proposed("lower-epsilon", dominated(name="Adafactor", eps=[1e-3, 2e-3]), of)
    assert "torch.optim.Adafactor(model.parameters(), eps=(1e-08, 0.002))" in change.code


def stale(rms, **more):
    values = np.ones((STEPS, 4))
    values[100:110, 1] = rms
    series = {"optimizer.rms": values, "run.grad_norm": np.ones(STEPS)}
    return run_of(series, sites={"optimizer": sites("optimizer")}, events=[optimizer(**more)])


def test_a_stale_moment_is_told_in_the_words_of_the_optimizer():
    of = finding("adam-stale-second-moment")
    run = stale(10.0, name="RMSprop", alpha=0.99)
    assert support("stale-second-moment", run, of) > 0.7
    change = proposed("lower-beta2", run, of)
    assert "alpha 0.99 → 0.95: the second moment averages over 100 steps" in change.text
    assert "alpha=0.95" in change.code
    assert 'second = state["square_avg"]' in proposed("clip-updates", run, of).code
    nesterov = proposed("lower-beta2", stale(10.0, name="NAdam", betas=[0.8, 0.99]), of)
    assert "betas=(0.8, 0.95)" in nesterov.code
    for fix in ("lower-beta2", "clip-updates"):  # Adafactor clips its updates, and nothing sets its memory
        assert proposed(fix, stale(10.0, name="Adafactor", beta2_decay=-0.8), of) is None


def test_a_second_moment_is_stale_by_what_it_can_lag_at_most():
    of = finding("adam-stale-second-moment")
    assert support("stale-second-moment", stale(25.0), of) > 0.7
    assert support("stale-second-moment", stale(2.5), of) == 0.0


def test_updates_are_clipped_where_there_is_a_second_moment():
    change = proposed("clip-updates", stale(25.0), finding("adam-stale-second-moment"))
    assert "it was 25, where 1 is right" in change.text
    assert change.runtime == {"clip_updates": 1.0}
    assert proposed("clip-updates", clipped(0.01), finding("loss-spike")) is None


def test_a_state_is_reset_with_a_warm_up_of_its_memory():
    change = proposed("reset-optimizer-state", stale(25.0), finding("adam-stale-second-moment"))
    assert "over 1000 steps" in change.text
    assert change.runtime == {"reset_at": 100.0}


def test_a_state_that_is_young_again_was_lost_there_and_nowhere_else():
    run = run_of({"run.optimizer_age": np.r_[1:101, 1:101]})
    assert support("optimizer-state-lost", run, finding("optimizer-state-lost", onset=100)) > 0.85
    assert support("optimizer-state-lost", run, finding("loss-spike", onset=60)) == 0.0


def growing(decay):
    norm = 4.0 * np.exp(0.015 * np.arange(STEPS))[:, None] * np.ones(4)
    series = {"weight.norm": norm, "run.lr": np.full(STEPS, 0.05)}
    return run_of(series, sites={"weight": sites("weight")}, events=[optimizer(weight_decay=decay)])


def test_weights_that_grow_want_decay_where_there_is_little():
    of = finding("weight-norm-drift", growth=12.0)
    assert support("weight-decay-too-low", growing(0.0), of) > 0.6
    assert support("weight-decay-too-low", growing(1.0), of) < 0.2
    change = proposed("raise-weight-decay", growing(0.0), of)
    assert "weight decay 0 → 0.1 on matrices: norms grew 12-fold" in change.text
    assert proposed("raise-weight-decay", growing(0.5), of) is None


def noisy(signal, before=32.0, after=2.0):
    samples = np.where(np.arange(STEPS) < 100, before, after)
    return run_of({"run.grad_cosine": np.full(STEPS, signal), "run.samples": samples})


def test_a_batch_that_was_cut_is_too_small_unless_gradients_agree():
    of = finding("noise-dominated", at=("run",), samples_before=32.0, samples=2.0, noise_to_signal=99.0)
    assert support("batch-too-small", noisy(0.01), of) > 0.7
    assert support("batch-too-small", noisy(0.7, after=32.0), of) == 0.0
    assert support("batch-too-small", noisy(0.7), of) < 0.2
    change = proposed("larger-batch", noisy(0.01), of)
    assert "accumulate the gradients of 16 batches, as many samples as the 32 before" in change.text
    assert "gradient_accumulation_steps=16" in change.text
    assert change.runtime == {"accumulate": 16.0}


def test_the_embedding_that_took_up_the_gradient_is_shrunk_and_no_other_layer():
    tables = [Site("grad", "tokens.weight", "Embedding", (128, 48), order=0), *sites("grad")]
    run = run_of({"grad.norm": np.ones((STEPS, 5))}, sites={"grad": tables})
    of = finding("embedding-gradient-spike", at=("tokens.weight",), share=0.9, growth=30.0)
    assert support("out-of-distribution-batch", run, of) == pytest.approx(0.5)
    change = proposed("shrink-embedding-gradient", run, of)
    assert "get_submodule('tokens')" in change.code
    assert change.runtime == {"embedding_gradient": 0.1}
    assert proposed("shrink-embedding-gradient", run, finding("exploding-gradient")) is None


def test_adaptive_clipping_tells_the_usual_norm_and_the_peak():
    norm = np.ones(STEPS)
    norm[100] = 40.0
    change = proposed(
        "adaptive-clipping", run_of({"run.grad_norm": norm}), finding("loss-spike", at=("run",))
    )
    assert "it was 1, and it rose to 40 at step 100" in change.text
    assert change.runtime == {"clip_multiple": 1.5}
