import numpy as np
import pytest

from stabdiag.analysis.catalogue import CAUSES, SIGNATURES
from stabdiag.analysis.depth import evenly, layers, telling
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.losscurve import harmed, loss_curve
from stabdiag.analysis.updates import updates
from stabdiag.core.event import Event
from stabdiag.core.finding import Severity
from stabdiag.core.run import RunInfo
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of


def only(name, run):
    (finding,) = SIGNATURES[name](run)
    return finding


def zeros(count=40, width=3):
    loss = np.linspace(3, 1, count)
    return {"run.loss": loss, "run.nonfinite": np.zeros(count), "output.nonfinite": np.zeros((count, width))}


MODULES = [
    Site("output", "", "Model", order=0),
    Site("output", "block", "Block", order=1),
    Site("output", "block.norm", "LayerNorm", order=2),
]


def test_the_origin_is_the_innermost_module_and_not_the_containers_that_repeat_it():
    series = zeros()
    series["output.nonfinite"][20] = 1
    series["run.nonfinite"][20:] = 1
    finding = only("nonfinite-origin", run_of(series, sites={"output": MODULES}))
    assert finding.sites[0] == "block.norm"
    assert (finding.onset_step, finding.severity) == (20, Severity.critical)


def test_a_bad_batch_comes_before_all_that_follows_in_its_step():
    series = zeros()
    series["output.nonfinite"][20] = 1
    series["run.nonfinite"][20] = 1
    series["batch.nonfinite"] = np.where(np.arange(40) == 20, 7.0, 0.0)
    finding = only("nonfinite-origin", run_of(series, sites={"output": MODULES, "batch": ["tokens"]}))
    assert finding.sites == ("tokens",)
    assert finding.severity == Severity.warning
    assert finding.facts["persists"] == 0


def test_finite_loss_with_bad_gradients_is_told_as_backward_nearest_the_loss():
    series = zeros()
    series["grad.nonfinite"] = np.zeros((40, 3))
    series["grad.nonfinite"][20, :2] = 4
    finding = only("nonfinite-origin", run_of(series, sites={"output": MODULES}))
    assert finding.sites[0] == "layers.1"
    assert finding.facts["backward"] == 1
    assert "backward" in finding.message


def test_an_unrecorded_output_is_said_to_be_unknown():
    series = {key: values[:4] if key.startswith("output") else values for key, values in zeros().items()}
    series["run.nonfinite"][25:] = 1
    run = run_of(series, sites={"output": MODULES}, steps={"output": [0, 10, 20, 30]})
    assert "were not recorded" in only("nonfinite-origin", run).message


def test_a_rise_begins_where_the_loss_last_was_at_its_best():
    loss = np.r_[np.linspace(5, 2, 200), 2 + 0.05 * np.arange(100)]
    loss += 0.01 * np.random.default_rng(0).standard_normal(300)
    finding = only("loss-divergence", run_of({"run.loss": loss}))
    assert 195 <= finding.onset_step <= 210
    assert finding.facts["loss_before"] == pytest.approx(2.0, abs=0.1)
    assert finding.facts["loss_peak"] == pytest.approx(6.95, abs=0.05)


def test_each_of_two_spikes_is_told_and_six_are_told_together():
    rng = np.random.default_rng(0)
    base = 2 + 3 * np.exp(-np.arange(600) / 50) + 0.03 * rng.standard_normal(600)

    def spiked(at):
        loss = base.copy()
        for step in at:
            loss[step : step + 6] += 1.5
        return run_of({"run.loss": loss})

    two = list(SIGNATURES["loss-spike"](spiked([150, 400])))
    assert [(f.onset_step, f.last_step) for f in two] == [(150, 155), (400, 405)]
    together = only("loss-spike", spiked([150, 220, 290, 360, 430, 500]))
    assert together.severity == Severity.warning
    assert together.facts["spikes"] == 6
    assert (together.onset_step, together.last_step) == (150, 505)


def test_thresholds_can_be_set():
    rng = np.random.default_rng(0)
    ratio = 0.1 * np.exp(0.1 * rng.standard_normal((60, 4)))
    sites = {"update": [Site("update", f"w{i}", "Linear", (8, 8), order=i) for i in range(4)]}
    run = run_of({"update.ratio": ratio}, sites=sites)
    assert list(SIGNATURES["update-ratio-high"](run)) == []
    assert list(SIGNATURES["update-ratio-high"](run, {"high": 0.05}))


def test_too_little_is_declined_with_a_reason():
    with pytest.raises(NotEvaluable, match="only 2 steps"):
        list(
            SIGNATURES["unreachable-parameters"](
                run_of({"grad.norm": np.ones(2), "grad.nonfinite": np.zeros(2)})
            )
        )


def test_harm_is_seen_in_any_unit_and_not_in_opposed_losses():
    fallen = np.linspace(5, 1, 200)
    back = np.r_[fallen, np.full(100, 4.5)]
    for scale, shift in ((1, 0), (1e4, 0), (1e-4, 0), (1, -50)):
        assert not harmed(run_of({"run.loss": scale * fallen + shift}))
        assert harmed(run_of({"run.loss": scale * back + shift}))
    two = [Event("optimizer", 0.0), Event("optimizer", 0.0)]
    assert not harmed(run_of({"run.loss": back}, events=two))
    assert harmed(run_of({"run.loss": np.r_[fallen, np.inf]}, events=two))


def test_optimizers_of_other_ranks_are_not_further_ones():
    ranks = [Event("optimizer", 0.0, rank=0), Event("optimizer", 0.0, rank=1)]
    assert not loss_curve(run_of({"run.loss": np.ones(5)}, events=ranks)).several


def test_a_loss_that_is_nan_counts_only_where_it_was_measured():
    loss = np.r_[np.ones(5), np.nan, np.ones(4)]
    assert len(loss_curve(run_of({"run.loss": loss})).values) == 9
    measured = run_of({"run.loss": loss, "run.nonfinite": np.isnan(loss).astype(float)})
    assert len(loss_curve(measured).values) == 10


def test_updates_leave_out_vectors_zero_starts_and_withheld_steps():
    sites = [
        Site("update", "a", "Linear", (4, 4)),
        Site("update", "bias", "Linear", (4,)),
        Site("update", "zero", "Linear", (4, 4)),
    ]
    ratio = np.array([[0.1, 9, np.nan], [0.2, 9, 5.0], [0.0, 0, 0.0]])
    norm = np.array([[1.0, 1, 1], [1, 1, 1], [0, 0, 0]])
    skipped = np.array([0.0, 0, 1])
    taken = updates(
        run_of({"update.ratio": ratio, "update.norm": norm, "run.skipped": skipped}, sites={"update": sites})
    )
    assert taken.names == ("a",)
    np.testing.assert_allclose(taken.middle, [0.1, 0.2])


def test_layers_are_trainable_matrices_in_forward_order():
    sites = [
        Site("grad", "head", "Linear", (9, 4), order=5),
        Site("grad", "first", "Linear", (4, 4), order=1),
        Site("grad", "bias", "Linear", (4,), order=1),
        Site("grad", "words", "Embedding", (9, 4), order=0),
        Site("grad", "frozen", "Linear", (4, 4), order=2, trainable=False),
        Site("grad", "unused", "Linear", (4, 4)),
    ]
    assert layers(sites) == [1, 0]


def test_evenly_spread_positions_keep_both_ends():
    assert evenly(5).tolist() == [0, 1, 2, 3, 4]
    picked = evenly(10_000, 100)
    assert (len(picked), picked[0], picked[-1]) == (100, 0, 9_999)


def test_the_most_telling_come_first_and_unknown_ones_not_at_all():
    assert telling(["a", "b", "c"], np.array([1.0, np.nan, 3.0])) == ("c", "a")


def test_a_loss_far_below_the_uniform_guess_is_that_of_a_trained_model():
    classes = Event("loss", 0.0, data={"function": "cross-entropy", "classes": 128})
    with pytest.raises(NotEvaluable, match=r"first loss was 1\.20"):
        list(SIGNATURES["bad-initialization"](run_of({"run.loss": np.full(9, 1.2)}, events=[classes])))


@pytest.mark.parametrize(("before", "leads"), [(2.0, True), (40.0, False)])
def test_a_nonfinite_value_is_put_down_to_the_layer_that_leapt_before_it_overflowed(before, leads):
    """Where the layer before had grown as well, nothing leapt by itself."""
    absmax = np.full((60, len(MODULES)), 2.0)
    absmax[40, 0], absmax[40, 1], absmax[40, 2:] = before, 1e37, np.nan
    series = {
        "run.loss": np.where(np.arange(60) < 40, 2.0, np.nan),
        "output.absmax": absmax,
        "output.nonfinite": np.isnan(absmax),
    }
    run = run_of(series, sites={"output": MODULES})
    finding = only("nonfinite-origin", run)
    assert (finding.sites[0] == MODULES[1].name) is leads
    assert (CAUSES["hardware-corruption"].weigh(run, finding) is not None) is leads


def test_a_variance_that_explodes_is_pinned_on_the_layer_that_puts_it_out():
    steps = np.arange(0, 100, 10)
    level = np.linspace(6.0, 9.0, 10)
    outputs = np.stack([np.ones(10), level, level, np.full(10, 20.0)], axis=1)
    names = ("mean", "log_variance", "VAE[2]", "decoder")
    sites = {
        "latent": [Site("latent", "mean", order=0)],
        "output": [Site("output", name, order=i) for i, name in enumerate(names)],
    }
    series = {
        "latent.kl_dim": np.full(10, 5.0),
        "latent.max_log_variance": level,
        "output.max": outputs,
        "run.loss": np.linspace(3, 2, 100),
    }
    run = run_of(series, sites=sites, steps={"latent": steps, "output": steps})
    assert only("vae-kl-explosion", run).sites == ("log_variance", "mean")


ATTENTION = [
    Site("output", name, kind, order=i)
    for i, (name, kind) in enumerate(
        [
            ("rnn", "GRU"),
            ("attn.q", "Linear"),
            ("attn.k", "Linear"),
            ("attn", "Attention"),
            ("cell", "GRUCell"),
        ]
    )
]


@pytest.mark.parametrize(
    ("calls", "origin"),
    [
        ([0, 8, 0, 9, 9], "attn"),  # one call more than any module within: a softmax over nothing
        ([0, 9, 0, 9, 9], "attn.q"),
        ([0, 0, 1, 9, 9], "attn.k"),  # keys are computed once
        ([9, 8, 0, 9, 9], "rnn"),
    ],
)
def test_a_module_with_more_calls_that_are_not_finite_than_those_within_made_the_first(calls, origin):
    series = zeros(width=5)
    series["output.nonfinite"][20] = calls
    series["run.nonfinite"][20:] = 1
    finding = only("nonfinite-origin", run_of(series, sites={"output": ATTENTION}))
    assert finding.sites[0] == origin
    assert ("it made the first one itself" in finding.message) == (origin == "attn")


def test_what_comes_before_is_not_called_finite_where_a_module_beside_it_put_out_more():
    decoder = [Site("output", f"decoder.{name}", order=i) for i, name in enumerate(("embed", "cell"))]
    series = zeros(width=2)
    series["run.nonfinite"][20:] = 1
    told = []
    for calls in ([8, 9], [9, 9]):
        series["output.nonfinite"][20] = calls
        told.append(only("nonfinite-origin", run_of(series, sites={"output": decoder})).message)
    assert "decoder.cell put out more of them" in told[0]
    assert "what comes before it is" in told[1]
    assert "put out more" not in told[1]


FADING = 10 ** np.maximum(-8.0, -np.arange(400) / 20)[:, None] * np.ones((400, 4))
STILL = 11.8 + np.random.default_rng(0).standard_normal(400)


def lost(norms=FADING, loss=STILL):
    series = {"grad.norm": norms, "run.loss": loss, "run.nonfinite": np.isnan(loss) * 1.0}
    return list(SIGNATURES["vanishing-gradient"](run_of(series)))


def test_a_gradient_that_dies_under_a_loss_that_stays_is_told_since_it_falls():
    (finding,) = lost()
    assert finding.severity == Severity.warning
    assert finding.onset_step < 10 < finding.peak_step < 100
    assert finding.facts["gradient_left"] == pytest.approx(1e-8, rel=0.5)


@pytest.mark.parametrize(
    ("norms", "loss"),
    [
        (FADING, STILL * np.linspace(1.0, 0.7, 400)),
        (np.maximum(FADING, 2e-4), STILL),
        (np.where(np.arange(400)[:, None] > 390, 1.0, FADING), STILL),
        (np.zeros((400, 4)), STILL),
        (np.where(np.arange(400)[:, None] < 2, 1.0, 1e-18 * FADING), STILL),
        (FADING, np.where(np.arange(400) > 60, np.nan, STILL)),
        (FADING, STILL - 20.0),
    ],
    ids=[
        "the loss fell",
        "not far enough",
        "it came back",
        "never any",
        "dead at once",
        "lost to NaN",
        "no share of it",
    ],
)
def test_a_gradient_that_is_small_otherwise_is_not_lost(norms, loss):
    assert not lost(norms, loss)


def test_two_batches_of_nothing_but_nan_are_not_the_same_batch():
    prints = np.where(np.arange(200) % 4, np.random.default_rng(0).integers(0, 2**24, 200), 77)
    series = {"batch.fingerprint": prints, "batch.nonfinite": (prints == 77) * 1.0, "run.loss": np.ones(200)}
    assert not list(SIGNATURES["data-repetition"](run_of(series)))
    series["batch.nonfinite"] = np.zeros(200)
    assert only("data-repetition", run_of(series)).facts["repeated"] == pytest.approx(0.245, rel=1e-3)


def test_a_divergence_that_explodes_is_measured_by_what_crossed_its_threshold():
    def latent(level, kl_dim):
        series = {"latent.kl_dim": np.where(np.arange(40) < 20, 1.0, kl_dim)}
        series["latent.max_log_variance"] = np.where(np.arange(40) < 20, 0.5, level)
        return run_of(series, sites={"latent": ["mean"]}, steps={"latent": np.arange(0, 400, 10)})

    by_level, by_size = (only("vae-kl-explosion", latent(*of)) for of in ((6.0, 60.0), (4.5, 30.0)))
    assert (by_level.value, by_level.threshold) == (6.0, 5.0)
    assert (by_size.value, by_size.threshold) == (30.0, 10.0)
    # No variance of 1.8 makes a divergence of more than 0.1 nat: what is infinite is a logarithm of zero.
    assert not list(SIGNATURES["vae-kl-explosion"](latent(0.6, np.inf)))


def test_while_a_run_goes_on_its_first_steps_are_no_starvation():
    def creeping(info, steps):
        ratio = np.full((steps // 10, 4), 2e-5)
        sites = {"update": [Site("update", f"layers.{i}.weight", shape=(8, 8)) for i in range(4)]}
        series = {"run.loss": np.full(steps, 2.0), "run.lr": np.full(steps, 1e-3), "update.ratio": ratio}
        return run_of(series, sites=sites, steps={"update": np.arange(0, steps, 10)}, info=info)

    over, going_on = RunInfo(started=1.0, ended=2.0), RunInfo(started=1.0)
    assert "with" not in only("lr-starvation", creeping(over, 400)).message
    assert not list(SIGNATURES["lr-starvation"](creeping(going_on, 400)))
    assert list(SIGNATURES["lr-starvation"](creeping(going_on, 1200)))
