"""What the synthetic examples do not say of the signatures of attention, propagation, modes and families:
where they point, when they begin, and what makes the same level a fault or none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stabdiag.analysis.catalogue import CAUSES, FIXES, SIGNATURES
from stabdiag.analysis.consequence import improves, stalled, stuck, suffers
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.pretrained import pretrained
from stabdiag.core.event import Event
from stabdiag.core.finding import Severity
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

RNG = np.random.default_rng(0)
NOISE = 0.02 * RNG.standard_normal(400)
FALLS = 2 + 2.8 * np.exp(-np.arange(400) / 100) + NOISE
STUCK = np.r_[np.linspace(4.85, 4.2, 100), np.full(300, 4.25)] + NOISE
EVERY = np.arange(0, 400, 10)
CLASSES = Event("loss", 0.0, data={"function": "cross-entropy", "classes": 128})


def only(name, run, **thresholds):
    (finding,) = SIGNATURES[name](run, thresholds)
    return finding


def heads(layers, each):
    names = [f"blocks.{i}.attn{f'[h{h}]' if h >= 0 else ''}" for i in range(layers) for h in range(-1, each)]
    return [Site("attention", name, "Attention", (2, each, 8, 8), order=int(name[7])) for name in names]


def growing(loss, at=20):
    logits = np.full((40, 6), 9.0)
    logits[at:, 4] = 9 * 1.5 ** np.arange(1, 41 - at)  # head 0 of the second layer, and with it the layer
    logits[at:, 3] = logits[at:, 4]
    entropy = np.where(logits > 100, 0.1, 0.7)
    series = {"attention.max_logit": logits, "attention.entropy_ratio": entropy, "run.loss": loss}
    return run_of(series, sites={"attention": heads(2, 2)}, steps={"attention": EVERY}, events=[CLASSES])


def test_the_layer_and_the_head_whose_logits_grow_are_named_at_the_step_where_they_pass():
    finding = only("attention-logit-growth", growing(STUCK, at=5))
    assert finding.sites == ("blocks.1.attn", "blocks.1.attn[h0]")
    assert finding.onset_step == 90
    assert finding.severity is Severity.critical
    assert finding.facts["layers"] == 1


def test_growing_logits_are_a_warning_before_the_loss_shows_it_and_info_while_it_improves():
    flat = np.r_[np.linspace(4.85, 2, 100), np.full(300, 2.0)] + NOISE
    assert only("attention-logit-growth", growing(flat)).severity is Severity.warning
    still_falling = 5 - 0.008 * np.arange(400) + NOISE
    assert only("attention-logit-growth", growing(still_falling)).severity is Severity.info


def test_a_sink_at_the_first_key_is_no_collapse():
    entropy = np.full((40, 1), 0.04)
    series = {
        "attention.entropy_ratio": entropy,
        "attention.entropy": entropy * math.log(64),
        "run.loss": STUCK,
    }
    sites = {"attention": [Site("attention", "attn", "Attention", order=0)]}
    without = run_of(series, sites=sites, steps={"attention": EVERY})
    assert only("attention-entropy-collapse", without).severity is Severity.critical
    with_sink = {**series, "attention.entropy_rest": np.full((40, 1), 0.8 * math.log(64))}
    found = list(
        SIGNATURES["attention-entropy-collapse"](run_of(with_sink, sites=sites, steps={"attention": EVERY}))
    )
    assert [f.severity for f in found] == [Severity.info]  # of single heads


def test_logits_that_16_bits_round_coarsely_are_told_by_the_format():
    def run(dtype):
        mean = -5.0 * np.arange(40)
        series = {"logits.log_z": mean + 5, "logits.mean": mean, "output.rms": np.ones(40), "run.loss": FALLS}
        sites = {"logits": [Site("logits", "head")], "output": [Site("output", "head", dtype=dtype, order=1)]}
        return run_of(series, sites=sites, steps={"logits": EVERY, "output": EVERY})

    finding = only("output-logit-drift", run("torch.bfloat16"))
    assert finding.onset_step == 260  # 130 / 256 is the first beyond half a nat
    assert finding.severity is Severity.warning
    assert only("output-logit-drift", run("torch.float32")).severity is Severity.info


def tokens(spread, loss, shape, dtype="float32"):
    layers = [Site("tokens", f"blocks.{i}", "Block", (4, 16, 32), order=i) for i in range(4)]
    cosine = np.tile([0.1, 0.9, 0.95, 0.99], (5, 1))
    series = {
        "tokens.cosine": cosine,
        "tokens.spread": np.tile([0.9, spread, spread, spread], (5, 1)),
        "run.loss": loss,
        "logits.log_z": np.ones(40),
        "output.rms": np.ones(40),
    }
    sites = {
        "tokens": layers,
        "logits": [Site("logits", "head", order=9)],
        "output": [Site("output", "head", shape=shape, order=9)],
    }
    steps = {"tokens": np.arange(0, 400, 80), "logits": EVERY, "output": EVERY}
    return run_of(series, sites=sites, steps=steps)


def test_a_model_that_predicts_each_token_cannot_do_so_from_tokens_that_are_all_one():
    settled = np.r_[np.linspace(5.5, 2.9, 60), np.full(340, 2.9)] + NOISE
    finding = only("rank-collapse", tokens(0.02, settled, (4, 16, 128)))
    assert finding.severity is Severity.critical
    assert finding.sites == ("blocks.1", "blocks.2", "blocks.3")
    assert finding.onset_step == 0
    assert only("rank-collapse", tokens(0.02, settled, (4, 10))).severity is Severity.info  # it pools them
    assert only("rank-collapse", tokens(0.2, settled, (4, 16, 128))).severity is Severity.info


def stream(course, loss):
    rms = np.column_stack([np.ones(40), np.ones(40), course])
    sites = [Site("output", f"blocks.{i}", "", order=i) for i in range(3)]
    return run_of({"output.rms": rms, "run.loss": loss}, sites={"output": sites}, steps={"output": EVERY})


def test_a_stream_that_still_doubles_is_a_warning_and_one_that_has_settled_is_info():
    still = stream(np.exp(np.clip(np.arange(40) - 15, 0, None) / 3.0), FALLS)
    finding = only("residual-stream-growth", still)
    assert (finding.severity, finding.sites) == (Severity.warning, ("blocks.2",))
    settled = stream(np.minimum(np.exp(np.clip(np.arange(40) - 15, 0, None) / 2.0), 300.0), FALLS)
    assert only("residual-stream-growth", settled).severity is Severity.info


def test_the_first_of_the_layers_that_a_damaged_weight_reaches_is_named():
    absmax = 4 * np.exp(0.1 * RNG.standard_normal((40, 4)))
    rms = np.ones((40, 4))
    absmax[22:, 2:] *= [100, 30]
    rms[22:, 2:] = 5
    loss = FALLS.copy()
    loss[215:235] += 1
    sites = [Site("output", f"layers.{i}", "Linear", order=i) for i in range(4)]
    series = {"output.absmax": absmax, "output.rms": rms, "run.loss": loss}
    finding = only("activation-outliers", run_of(series, sites={"output": sites}, steps={"output": EVERY}))
    assert finding.sites[0] == "layers.2"
    assert (finding.onset_step, finding.severity) == (220, Severity.warning)


def squashed(share, loss=FALLS):
    sites = [Site("saturation", f"layers.{i}", "Linear", order=i) for i in range(share.shape[1])]
    return run_of(
        {"saturation.share": share, "run.loss": loss},
        sites={"saturation": sites},
        steps={"saturation": EVERY},
    )


def test_a_layer_that_was_cut_off_from_the_start_is_a_warning_and_the_last_one_alone_is_none():
    share = np.full((40, 3), 0.05)
    share[:, 1] = 0.97
    finding = only("saturated-units", squashed(share))
    assert (finding.severity, finding.sites, finding.onset_step) == (Severity.warning, ("layers.1",), 0)
    share[:20, 1] = 0.1
    assert only("saturated-units", squashed(share)).severity is Severity.info
    assert list(SIGNATURES["saturated-units"](squashed(share[:, [0, 2, 1]]))) == []


def test_lag_is_what_chance_does_not_explain():
    def run(items):
        sites = [Site("normalization", f"layers.{i}.norm", "BatchNorm2d", order=i) for i in range(4)]
        each = np.full((40, 4), 0.35)
        series = {f"normalization.{n}": each for n in ("mismatch",)} | {
            "normalization.headroom": 1e4 * each,
            "normalization.values": np.full((40, 4), 1000.0),
            "normalization.items": np.full((40, 4), items),
        }
        return run_of(series, sites={"normalization": sites}, steps={"normalization": EVERY})

    assert only("norm-statistics-mismatch", run(256.0)).severity is Severity.warning
    assert list(SIGNATURES["norm-statistics-mismatch"](run(8.0))) == []


def modes(training, optimized=(False, True, True)):
    sites = [Site("mode", f"m{i}", "Dropout", order=i, optimized=o) for i, o in enumerate(optimized)]
    return run_of({"mode.training": training}, sites={"mode": sites}, steps={"mode": EVERY})


def test_a_model_that_goes_back_to_training_mode_is_healthy():
    training = np.ones((40, 3))
    training[10:30] = 0
    assert list(SIGNATURES["mode-mismatch"](modes(training))) == []


def test_a_module_that_fell_asleep_on_its_way_is_named_although_the_model_is_awake():
    training = np.ones((40, 3))
    training[15:, 2] = 0
    finding = only("mode-mismatch", modes(training))
    assert (finding.sites, finding.onset_step, finding.severity) == (("m2",), 150, Severity.warning)


def test_a_posterior_that_collapses_among_others_that_do_not_is_info():
    kl = np.column_stack([np.full(40, 0.01), np.full(40, 12.0)])
    series = {"latent.kl": kl, "latent.active": (kl > 1).astype(float)}
    sites = {"latent": [Site("latent", "top", order=0), Site("latent", "bottom", order=1)]}
    both = run_of(series, sites=sites, steps={"latent": EVERY})
    assert only("vae-posterior-collapse", both).severity is Severity.info
    alone = run_of(
        {name: values[:, :1] for name, values in series.items()},
        sites={"latent": [Site("latent", "top", order=0)]},
        steps={"latent": EVERY},
    )
    finding = only("vae-posterior-collapse", alone)
    assert (finding.severity, finding.onset_step) == (Severity.critical, 40)


def test_the_side_that_loses_is_given_the_rate_of_the_other():
    course = np.exp(-np.arange(40) / 4)
    series = {
        "side.loss": np.column_stack([1.39 * course + 1e-3, 0.7 + 6 * (1 - course)]),
        "side.grad_norm": np.column_stack([course + 5e-3, np.ones(40)]),
        "run.lr": np.tile([3e-3, 1e-5], (400, 1)),
    }
    sites = {
        "side": [Site("side", "judge", order=0), Site("side", "maker", order=1)],
        "run": ["run", "Adam.1.0"],
    }
    run = run_of(series, sites=sites, steps={"side": EVERY})
    finding = only("gan-imbalance", run)
    assert finding.sites == ("judge", "maker")
    assert finding.facts["lr_ratio"] == pytest.approx(300)
    assert CAUSES["learning-rate-too-low"].weigh(run, finding).support > 0.8
    assert "maker 1e-05 → 0.003" in FIXES["raise-learning-rate"].propose(run, finding).text.replace(
        "1e-5", "1e-05"
    )


def test_one_optimizer_is_no_game():
    with pytest.raises(NotEvaluable, match="not two"):
        list(SIGNATURES["gan-imbalance"](run_of({"side.loss": np.ones(40), "side.grad_norm": np.ones(40)})))


def test_experts_that_are_idle_from_a_step_on_are_told_with_the_favourite():
    load = np.full((40, 4), 0.25)
    load[15:] = [0.97, 0.01, 0.01, 0.01]
    sites = [Site("router", "moe", order=0), *(Site("router", f"moe[e{i}]", order=0) for i in range(4))]
    series = {"router.load": np.column_stack([np.full(40, np.nan), load])}
    finding = only("moe-router-collapse", run_of(series, sites={"router": sites}, steps={"router": EVERY}))
    assert finding.sites == ("moe", "moe[e0]")
    assert 150 <= finding.onset_step <= 170
    assert finding.severity is Severity.critical


def gains(uneven, loss):
    series = {"normalization.gain": np.full((40, 3), uneven), "run.loss": loss}
    return run_of(series, steps={"normalization": EVERY}, events=[CLASSES])


def test_weights_that_were_trained_before_are_known_by_their_gains_or_their_first_loss():
    assert pretrained(gains(1.0, STUCK)) is None
    assert "gains" in pretrained(gains(1.7, STUCK))
    assert "first loss was 2" in pretrained(gains(1.0, np.full(400, 2.0)))


def test_harm_is_a_rise_or_a_loss_that_got_stuck_with_little_learned():
    def run(loss):
        return run_of({"run.loss": loss}, events=[CLASSES])

    assert not suffers(run(FALLS), 50)
    assert improves(run(FALLS), 50)
    assert suffers(run(STUCK), 50)
    assert not suffers(run(STUCK), 300)  # it was stuck before
    assert not improves(run(STUCK), 300)
    solved = np.r_[np.linspace(4.85, 0.1, 100), np.full(300, 0.1)] + NOISE
    assert stalled(run(solved))
    assert not stuck(run(solved), 50)
    rises = FALLS + np.clip(np.arange(400) - 300, 0, None) * 0.02
    assert suffers(run(rises), 290)
    assert not suffers(run_of({"grad.norm": np.ones(10)}), 0)


@pytest.mark.parametrize(
    ("name", "example", "fix", "words", "runtime"),
    [
        (
            "moe-router-collapse",
            0,
            "balance-router",
            "a balance loss of 0.01 on moe: one of 8 experts gets",
            0.01,
        ),
        ("vae-posterior-collapse", 0, "anneal-kl", "over 100 steps: the divergence is 0.0", 0.1),
        ("vae-posterior-collapse", 0, "free-bits", "0.5 nat free in each dimension: 0 % of them", 0.5),
        ("output-logit-drift", 0, "z-loss", "1e-4 · log² Z on head: log Z went from 6.0", 1e-4),
        ("norm-statistics-mismatch", 0, "batchnorm-momentum", "0.1 for the 3 batch normalizations", None),
        (
            "mode-mismatch",
            0,
            "set-train-mode",
            "layers.0.drop, layers.1.drop, layers.2.drop were in eval",
            None,
        ),
        ("mode-mismatch", 2, "set-train-mode", "model.eval() before each evaluation", None),
    ],
)
def test_fixes_of_families_speak_with_the_numbers_of_the_run(name, example, fix, words, runtime):
    run = SIGNATURES[name].fires[example](np.random.default_rng(0))
    change = FIXES[fix].propose(run, only(name, run))
    assert words in change.text.replace("0.0001", "1e-4")
    assert list(change.runtime.values()) == ([] if runtime is None else [runtime])


def test_fixes_of_attention_name_the_layer_whose_logits_grow():
    run = growing(STUCK, at=5)
    finding = only("attention-logit-growth", run)
    clip = FIXES["qk-clip"].propose(run, finding)
    assert "blocks.1.attn" in clip.text
    assert clip.runtime == {"max_logit": 20.0}
    assert "in blocks.1.attn" in FIXES["qk-norm"].propose(run, finding).text
    assert "in blocks.1.attn" in FIXES["attention-softcap"].propose(run, finding).text
    assert CAUSES["unbounded-attention-logits"].weigh(run, finding).support > 0.7


@pytest.mark.parametrize(("height", "severity"), [(0.09, Severity.info), (1.5, Severity.warning)])
def test_a_batch_that_costs_little_of_what_was_learned_is_only_worth_knowing(height, severity):
    rng = np.random.default_rng(0)
    loss = 3.0 * np.exp(-np.arange(400) / 30) + 4e-4 + 1e-5 * rng.standard_normal(400)
    loss[330] += height
    findings = list(SIGNATURES["bad-batch"](run_of({"run.loss": loss})))
    assert [f.severity for f in findings] == [severity]


@pytest.mark.parametrize(("rise", "severity"), [(0.0, Severity.info), (0.5, Severity.critical)])
def test_a_value_that_is_not_finite_out_of_quiet_is_no_harm_of_the_edge(rise, severity):
    rng = np.random.default_rng(0)
    loss = 0.3 + 0.5 * np.exp(-np.arange(300) / 40) + 0.005 * rng.standard_normal(300)
    loss[180:215] += np.linspace(0.0, rise, 35)
    loss[215:] = np.nan
    cosine = np.where(np.arange(300) < 120, 0.1, -0.9) + 0.01 * rng.standard_normal(300)
    (finding,) = SIGNATURES["edge-of-stability"](run_of({"run.loss": loss, "run.grad_cosine": cosine}))
    assert finding.severity is severity
