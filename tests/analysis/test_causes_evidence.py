import math

import numpy as np
import pytest

from stabdiag.analysis.catalogue import CAUSES, FIXES
from stabdiag.core.event import Event
from stabdiag.core.finding import Finding, Severity
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

STEPS = 200
ONSET = 120


def adam(lr=1e-3, beta2=0.999, weight_decay=0.0):
    groups = [{"lr": lr, "betas": [0.9, beta2], "eps": 1e-8, "weight_decay": weight_decay}]
    return Event("optimizer", 0.0, data={"name": "AdamW", "groups": groups, "parameters": 10})


def cross_entropy(classes):
    return Event("loss", 0.0, data={"function": "cross-entropy", "classes": classes})


def parameters(kind, count, **more):
    return [Site(kind, f"layers.{i}.weight", "Linear", (64, 64), order=i, **more) for i in range(count)]


def outputs(types, dtype="float32"):
    return [Site("output", f"layers.{i}", kind, dtype=dtype, order=i) for i, kind in enumerate(types)]


def flat(value, width=None):
    return np.full(STEPS if width is None else (STEPS, width), value, dtype=float)


def with_jump(value, factor, at=ONSET, length=1, width=None):
    series = flat(value, width)
    series[at : at + length] *= factor
    return series


def finding(signature="loss-spike", onset=ONSET, sites=("run",), last=None, **more):
    return Finding(
        Severity.critical, 1.0, sites, onset, onset, onset if last is None else last, "it did",
        signature=signature, **more,
    )  # fmt: skip


def support(cause, run, of):
    weight = CAUSES[cause].weigh(run, of)
    return weight.support if weight else 0.0


def leader(run, of, *candidates):
    return max(candidates, key=lambda cause: support(cause, run, of))


def test_long_updates_before_the_rise_speak_for_the_learning_rate():
    ratio = with_jump(0.005, 60, at=ONSET - 20, length=40, width=4)
    run = run_of(
        {"run.loss": flat(2.0), "run.lr": flat(0.3), "update.ratio": ratio},
        sites={"update": parameters("update", 4)},
        events=[adam(0.3)],
    )
    weight = CAUSES["learning-rate-too-high"].weigh(run, finding())
    assert weight.support > 0.9
    assert "the median update ratio of the weight matrices was 0.3 at step 100" in weight.because


def test_healthy_updates_speak_against_the_learning_rate():
    run = run_of(
        {"run.loss": flat(2.0), "run.lr": flat(1e-3), "update.ratio": flat(0.002, 4)},
        sites={"update": parameters("update", 4)},
        events=[adam()],
    )
    assert support("learning-rate-too-high", run, finding()) < 0.05


def test_the_first_update_of_adam_is_no_evidence_where_later_ones_are_known():
    ratio = flat(0.004, 4)
    ratio[0] = 0.3
    series = {"run.lr": flat(1e-3), "update.ratio": ratio}
    run = run_of(series, sites={"update": parameters("update", 4)}, events=[adam()])
    assert support("learning-rate-too-high", run, finding(onset=4)) == 0.0


def test_an_empty_history_never_raises_and_bias_updates_are_not_counted():
    bias = Site("update", "layers.0.bias", "Linear", (64,), order=0)
    run = run_of({"update.ratio": flat(1e9)}, sites={"update": [bias]})
    assert support("learning-rate-too-high", run, finding()) == 0.0


def test_a_fault_of_the_first_steps_without_warmup_speaks_for_a_missing_warmup_if_it_passes():
    ratio = flat(0.004, 4)
    ratio[:20] = 0.4
    series = {"run.loss": np.linspace(4, 2, STEPS), "run.lr": flat(1e-2), "update.ratio": ratio}
    passing = run_of(series, sites={"update": parameters("update", 4)})
    lasting = run_of({**series, "update.ratio": flat(0.4, 4)}, sites={"update": parameters("update", 4)})
    early = finding(onset=6)
    assert support("missing-warmup", passing, early) > 0.5
    assert support("missing-warmup", lasting, early) < 0.4
    assert support("missing-warmup", passing, finding(onset=ONSET)) == 0.0


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        (np.r_[np.full(115, 1e-4), np.full(85, 1e-2)], "jumped from 1e-4 to 0.01 at step 115"),
        (np.r_[np.full(50, 1e-3), np.zeros(150)], "was zero at 71 steps, first at step 50"),
        (np.r_[np.linspace(1e-3, 1e-6, 80), np.full(120, 1e-6)], "below 1 % of its peak from step"),
    ],
)
def test_a_broken_schedule_is_told_by_its_curve(rates, words):
    run = run_of({"run.loss": flat(2.0), "run.lr": rates})
    weight = CAUSES["schedule-bug"].weigh(run, finding("loss-plateau"))
    assert weight.support > 0.6
    assert words in weight.because.replace("0.0001", "1e-4")


@pytest.mark.parametrize(
    "rates",
    [
        np.r_[np.linspace(0, 1e-3, 40), 1e-3 * np.cos(np.linspace(0, 1.4, 160))],
        np.r_[np.full(115, 1e-2), np.full(85, 1e-3)],
        np.linspace(1e-3, 0, STEPS),
    ],
    ids=["warm-up and cosine", "milestone", "linear to zero"],
)
def test_ordinary_schedules_are_not_blamed(rates):
    assert support("schedule-bug", run_of({"run.loss": flat(2.0), "run.lr": rates}), finding()) == 0.0


def test_a_batch_out_of_any_range_is_corrupt_and_a_rare_one_is_not():
    def run(factor):
        loss, norm = with_jump(2.0, 3), with_jump(1.0, 5)
        reach = with_jump(3.0, factor)
        series = {"run.loss": loss, "run.grad_norm": norm, "run.lr": flat(1e-3), "batch.absmax": reach}
        return run_of(series, sites={"batch": ["input"]})

    candidates = ("corrupt-batch", "out-of-distribution-batch", "learning-rate-too-high")
    assert leader(run(900), finding(), *candidates) == "corrupt-batch"
    assert "900 times the usual range" in CAUSES["corrupt-batch"].weigh(run(900), finding()).because
    assert leader(run(4), finding(), *candidates) == "out-of-distribution-batch"
    assert support("corrupt-batch", run(1), finding()) == 0.0


def test_a_token_batch_is_judged_by_loss_and_gradient_of_the_same_step():
    good = run_of({"run.loss": with_jump(2.0, 3), "run.grad_norm": with_jump(1.0, 20)})
    stuck = run_of({"run.loss": with_jump(2.0, 3, length=30), "run.grad_norm": with_jump(1.0, 20)})
    assert support("corrupt-batch", good, finding()) > 0.4
    assert support("corrupt-batch", stuck, finding()) < 0.3


def test_a_batch_that_was_learned_before_is_acquitted_by_its_fingerprint():
    prints = np.arange(STEPS, dtype=float)
    prints[ONSET] = 50
    series = {"run.loss": with_jump(2.0, 3), "run.grad_norm": with_jump(1.0, 20)}
    run = run_of({**series, "batch.fingerprint": prints}, sites={"batch": ["input"]})
    weight = CAUSES["corrupt-batch"].weigh(run, finding())
    assert weight.support < support("corrupt-batch", run_of(series), finding())
    assert "learned without trouble at step 50" in weight.because


def test_nan_in_the_input_leads_over_an_unsafe_operation():
    bad = flat(0.0)
    bad[ONSET] = 3
    series = {"run.loss": flat(2.0), "run.grad_norm": flat(1.0), "batch.nonfinite": bad}
    run = run_of(series, sites={"batch": ["input"]})
    origin = finding("nonfinite-origin", sites=("layers.0",))
    assert leader(run, origin, "nonfinite-input", "unsafe-operation") == "nonfinite-input"
    clean = run_of({**series, "batch.nonfinite": flat(0.0)}, sites={"batch": ["input"]})
    assert support("nonfinite-input", clean, origin) == 0.0
    assert leader(clean, origin, "nonfinite-input", "unsafe-operation") == "unsafe-operation"


def test_a_value_that_climbs_to_the_limit_of_float16_is_an_overflow_only_in_float16():
    reach = np.geomspace(1, 60000, STEPS)[:, None]

    def run(dtype):
        return run_of({"output.absmax": reach}, sites={"output": outputs(["Linear"], dtype)})

    late = finding("nonfinite-origin", onset=STEPS - 1, sites=("layers.0",))
    assert support("precision-overflow", run("torch.float16"), late) > 0.8
    assert support("precision-overflow", run("torch.bfloat16"), late) == 0.0
    assert support("precision-overflow", run("torch.float32"), late) == 0.0


def test_signals_that_grow_through_the_depth_at_step_0_speak_for_the_initialization():
    growing = np.ones((STEPS, 8)) * 10.0 ** np.arange(8)
    run = run_of({"output.rms": growing}, sites={"output": outputs(["Linear"] * 8)})
    assert support("bad-init-scale", run, finding(onset=0)) > 0.6
    assert support("bad-init-scale", run, finding(onset=150)) < 0.2


def test_a_first_loss_above_a_uniform_guess_speaks_for_the_initialization():
    loss = np.linspace(18.0, 4.0, STEPS)
    run = run_of({"run.loss": loss}, events=[cross_entropy(128)])
    weight = CAUSES["bad-init-scale"].weigh(run, finding(onset=0))
    assert weight.support > 0.7
    assert "guessing among 128 classes costs 4.85" in weight.because


def deep(types, gradient_decades):
    norms = np.ones((STEPS, 10)) * 10.0 ** (gradient_decades * np.arange(10))
    return run_of(
        {"grad.norm": norms, "output.rms": flat(0.7, len(types)), "output.mean": flat(0.5, len(types))},
        sites={"grad": parameters("grad", 10), "output": outputs(types)},
    )


def test_a_gradient_that_fades_through_sigmoids_is_blamed_on_them():
    run = deep(["Linear", "Sigmoid"] * 5, 0.8)
    vanishing = finding("vanishing-gradient", onset=0)
    weight = CAUSES["saturating-activation"].weigh(run, vanishing)
    assert weight.support > 0.5
    assert "5 sigmoid layers" in weight.because
    assert support("missing-residual", run, vanishing) > 0.3
    assert support("saturating-activation", deep(["Linear", "ReLU"] * 5, 0.8), vanishing) == 0.0


def test_a_level_gradient_acquits_depth_and_a_norm_layer_acquits_its_absence():
    vanishing = finding("vanishing-gradient", onset=0)
    assert support("missing-residual", deep(["Linear"] * 10, 0.0), vanishing) == 0.0
    assert support("missing-normalization", deep(["Linear"] * 10, 0.8), vanishing) > 0.3
    assert support("missing-normalization", deep(["Linear", "LayerNorm"] * 5, 0.8), vanishing) == 0.0


def test_units_without_gradient_behind_a_relu_are_dead_and_behind_a_gelu_less_so():
    def run(activation):
        dead = np.zeros((STEPS, 2))
        dead[ONSET:, 1] = 0.95
        sites = {"grad": parameters("grad", 2), "output": outputs(["Linear", activation])}
        return run_of({"grad.dead": dead, "output.rms": flat(1.0, 2)}, sites=sites)

    dead_units = finding("dead-units", sites=("layers.1.weight",), last=STEPS - 1)
    assert support("dying-relu", run("ReLU"), dead_units) > 0.7
    assert support("dying-relu", run("GELU"), dead_units) < 0.3


def test_a_plain_rnn_is_suspected_and_a_model_without_recurrence_never():
    norms = {"run.grad_norm": with_jump(1.0, 1e4)}
    with_rnn = run_of({**norms, "output.rms": flat(1.0)}, sites={"output": outputs(["RNN"])})
    without = run_of({**norms, "output.rms": flat(1.0)}, sites={"output": outputs(["Linear"])})
    exploding = finding("exploding-gradient", sites=("layers.0.weight_hh_l0",))
    assert support("recurrent-instability", with_rnn, exploding) > 0.8
    assert support("recurrent-instability", without, exploding) == 0.0


@pytest.mark.parametrize(
    ("site", "told"),
    [
        ("layers.0", True),
        ("layers.0.weight_hh_l0", True),
        ("layers.0[1]", True),
        ("layers.1", False),
        ("layers", False),
    ],
)
def test_a_value_that_is_not_finite_is_put_down_to_a_recurrence_only_from_within(site, told):
    run = run_of({"output.rms": flat(1.0, width=2)}, sites={"output": outputs(["GRU", "Linear"])})
    origin = finding("nonfinite-origin", sites=(site, "layers.0"))
    assert (support("recurrent-instability", run, origin) > 0) == told


def test_a_missing_gradient_means_a_cut_graph_and_a_present_one_a_forgotten_optimizer():
    def run(gradient, optimized):
        sites = {kind: parameters(kind, 1, optimized=optimized) for kind in ("grad", "weight")}
        return run_of({"grad.norm": flat(gradient), "weight.norm": flat(1.0)}, sites=sites)

    frozen = finding("frozen-parameters", onset=0, sites=("layers.0.weight",), last=STEPS - 1)
    candidates = ("detached-graph", "parameters-not-optimized")
    assert leader(run(np.nan, True), frozen, *candidates) == "detached-graph"
    assert leader(run(0.3, False), frozen, *candidates) == "parameters-not-optimized"
    assert support("detached-graph", run(0.3, False), frozen) == 0.0


def test_gradients_that_carry_over_are_not_zeroed():
    growing = finding("gradients-not-zeroed", onset=1, last=STEPS - 1)
    assert support("gradients-not-zeroed", run_of({"run.grad_carryover": flat(1.0)}), growing) > 0.9
    assert support("gradients-not-zeroed", run_of({"run.grad_carryover": flat(0.0)}), growing) == 0.0


def test_a_flat_loss_with_healthy_internals_is_blamed_on_the_targets():
    def run(ratio):
        return run_of(
            {"run.loss": flat(math.log(128)), "run.lr": flat(1e-3), "update.ratio": flat(ratio, 4)},
            sites={"update": parameters("update", 4)},
            events=[cross_entropy(128)],
        )

    plateau = finding("loss-plateau", onset=50, last=STEPS - 1)
    candidates = ("wrong-targets", "learning-rate-too-low")
    assert leader(run(0.004), plateau, *candidates) == "wrong-targets"
    assert leader(run(1e-6), plateau, *candidates) == "learning-rate-too-low"


def test_probabilities_into_a_cross_entropy_are_a_wrong_loss():
    def run(low, high):
        series = {"output.min": flat(low, 2), "output.max": flat(high, 2)}
        return run_of(series, sites={"output": outputs(["Linear", "Softmax"])}, events=[cross_entropy(10)])

    plateau = finding("loss-plateau", onset=50, last=STEPS - 1)
    assert support("wrong-loss", run(0.001, 0.99), plateau) > 0.8
    assert support("wrong-loss", run(-7.0, 9.0), plateau) == 0.0


def test_updates_too_long_for_their_learning_rate_are_a_stale_second_moment():
    rms = 64.0  # sqrt of the number of elements of a 64 x 64 matrix
    norm = with_jump(0.25 * 1e-3 * rms, 4, at=ONSET - 3, length=6, width=4)

    def run(beta2, norm):
        return run_of(
            {"run.lr": flat(1e-3), "run.loss": with_jump(2.0, 2), "update.norm": norm},
            sites={"update": parameters("update", 4)},
            events=[adam(beta2=beta2)],
        )

    assert support("stale-second-moment", run(0.999, norm), finding()) > 0.6
    assert support("stale-second-moment", run(0.95, norm), finding()) < 0.5
    assert support("stale-second-moment", run(0.999, flat(0.25 * 1e-3 * rms, 4)), finding()) == 0.0


def test_pixels_of_0_to_255_are_unnormalized_and_unit_inputs_are_not():
    def run(rms, mean):
        return run_of({"batch.rms": flat(rms), "batch.mean": flat(mean)}, sites={"batch": ["input"]})

    assert support("unnormalized-input", run(130.0, 110.0), finding(onset=0)) > 0.8
    assert support("unnormalized-input", run(1.0, 0.0), finding(onset=0)) == 0.0


def test_weights_that_fall_under_a_strong_decay_are_blamed_on_it():
    def run(decay, last):
        norms = np.linspace(10, last, STEPS)[:, None] * np.ones(3)
        series = {"weight.norm": norms, "run.lr": flat(1e-2)}
        return run_of(
            series, sites={"weight": parameters("weight", 3)}, events=[adam(1e-2, weight_decay=decay)]
        )

    assert support("weight-decay-too-high", run(1.0, 1.0), finding(last=STEPS - 1)) > 0.6
    assert support("weight-decay-too-high", run(0.01, 10.5), finding(last=STEPS - 1)) == 0.0


def test_one_parameter_alone_that_jumps_is_a_sign_of_the_hardware():
    largest = flat(0.1, 5)
    largest[ONSET:, 2] = 1e6
    run = run_of({"weight.absmax": largest}, sites={"weight": parameters("weight", 5)})
    assert support("hardware-corruption", run, finding()) > 0.4
    everywhere = flat(0.1, 5)
    everywhere[ONSET:] = 1e6
    run = run_of({"weight.absmax": everywhere}, sites={"weight": parameters("weight", 5)})
    assert support("hardware-corruption", run, finding()) == 0.0


def test_a_loss_that_returned_is_a_benign_transient_and_one_that_stayed_up_is_not():
    calm = Finding(Severity.warning, 1.0, ("run",), ONSET, ONSET, ONSET + 2, "it did", signature="loss-spike")

    def run(length, pull):
        return run_of({"run.loss": with_jump(2.0, 3, length=length), "run.grad_norm": with_jump(1.0, pull)})

    assert support("benign-transient", run(2, 1), calm) > 0.4
    assert support("benign-transient", run(2, 100), calm) < 0.2
    assert support("benign-transient", run(80, 1), calm) == 0.0


def test_how_fast_a_loss_was_back_is_told_in_steps_and_not_in_records():
    calm = Finding(Severity.warning, 1.0, ("run",), 600, 600, 610, "it did", signature="loss-spike")
    loss = with_jump(2.0, 3, at=60)
    run = run_of({"run.loss": loss}, steps={"run": np.arange(0, 10 * STEPS, 10)})
    assert "within 50 steps" in CAUSES["benign-transient"].weigh(run, calm).because


def test_a_loss_beyond_a_guess_is_damage_and_one_below_it_may_be_rare_data():
    def run(factor):
        return run_of(
            {"run.loss": with_jump(2.5, factor), "run.grad_norm": with_jump(1.0, 4)},
            events=[cross_entropy(256)],
        )

    candidates = ("corrupt-batch", "out-of-distribution-batch")
    assert leader(run(3.2), finding(), *candidates) == "corrupt-batch"
    assert leader(run(1.5), finding(), *candidates) == "out-of-distribution-batch"


def test_gradients_of_exactly_zero_are_weaker_evidence_of_a_cut_graph_than_absent_ones():
    def run(gradient):
        return run_of({"grad.norm": flat(gradient, 2)}, sites={"grad": parameters("grad", 2)})

    unreachable = finding("unreachable-parameters", onset=0, sites=("layers.0.weight", "layers.1.weight"))
    assert support("detached-graph", run(np.nan), unreachable) > 0.8
    assert 0 < support("detached-graph", run(0.0), unreachable) < 0.4


def test_of_a_log_with_nothing_but_a_loss_no_operation_is_blamed():
    lost = run_of({"run.loss": np.where(np.arange(STEPS) < ONSET, 2.0, np.nan)})
    assert support("unsafe-operation", lost, finding("nonfinite-origin")) == 0


def test_a_loss_that_had_grown_speaks_against_an_unsafe_operation():
    grown = with_jump(2.0, 1e6, at=ONSET - 2, length=2)
    grown[ONSET:] = np.nan
    for loss, blamed in ((grown, False), (np.where(np.isnan(grown), np.nan, 2.0), True)):
        run = run_of(
            {"run.loss": loss, "output.nonfinite": np.zeros((STEPS, 2))},
            sites={"output": outputs(["Linear"] * 2)},
        )
        assert (support("unsafe-operation", run, finding("nonfinite-origin")) > 0.15) is blamed


def test_a_target_far_outside_of_all_others_is_damage():
    errors = {"run.loss": with_jump(0.3, 1e6), "targets.max": with_jump(1.5, 3e7)}
    run = run_of(errors, events=[Event("loss", 0.0, data={"function": "mean-squared-error"})])
    weight = CAUSES["corrupt-batch"].weigh(run, finding("bad-batch"))
    assert weight.support > 0.8
    assert "the worst sample was off by 5,480 times the usual error" in weight.because


def test_the_square_of_an_error_is_not_taken_for_the_error():
    errors = {"run.loss": with_jump(0.3, 60)}
    run = run_of(errors, events=[Event("loss", 0.0, data={"function": "mean-squared-error"})])
    assert support("corrupt-batch", run, finding("bad-batch")) < 0.1


def test_a_cross_entropy_has_no_error_to_be_off_by():
    run = run_of({"run.loss": with_jump(0.01, 1e4)}, events=[cross_entropy(10)])
    assert support("corrupt-batch", run, finding("bad-batch")) < 0.1


def test_a_sigmoid_before_a_loss_that_takes_its_own_is_the_wrong_loss():
    answers = {"output.min": flat(0.01, 1), "output.max": flat(0.98, 1)}
    taken = [Event("loss", 0.0, data={"function": "binary-cross-entropy", "logits": True})]
    wanted = [Event("loss", 0.0, data={"function": "binary-cross-entropy", "logits": False})]
    named = {"output": outputs(["Sigmoid"])}
    assert support("wrong-loss", run_of(answers, sites=named, events=taken), finding("saturated-units")) > 0.8
    assert support("wrong-loss", run_of(answers, sites=named, events=wanted), finding("saturated-units")) == 0
    advice = FIXES["fix-loss"].propose(run_of(answers, sites=named, events=taken), finding("saturated-units"))
    assert "without a sigmoid" in advice.code


def test_a_rate_that_ran_out_during_a_plateau_was_not_too_low_from_the_start():
    rate = 20.0 * 0.1 ** (np.arange(STEPS) // 40)
    run = run_of(
        {"run.loss": flat(3.2), "run.lr": rate, "update.ratio": flat(2e-5, 4)},
        sites={"update": parameters("update", 4)},
    )
    plateau = finding("context-blind-plateau", onset=20, last=STEPS - 1)
    assert leader(run, plateau, "learning-rate-too-low", "schedule-bug") == "schedule-bug"


def test_a_rate_that_fell_after_the_loss_rose_did_not_raise_it():
    rate = np.where(np.arange(STEPS) < ONSET + 10, 1e-3, 1e-6)
    run = run_of({"run.loss": with_jump(1.0, 20, length=STEPS - ONSET), "run.lr": rate})
    assert support("schedule-bug", run, finding("loss-divergence", last=STEPS - 1)) == 0
    assert support("schedule-bug", run, finding("loss-plateau", last=STEPS - 1)) > 0.5
