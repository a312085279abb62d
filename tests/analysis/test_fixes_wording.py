import ast

import numpy as np
import pytest

from stabdiag.analysis.catalogue import FIXES
from stabdiag.analysis.prescription import rounded
from stabdiag.core.event import Event
from stabdiag.core.finding import Finding, Severity
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

STEPS = 200


def finding(onset=120, sites=("layers.0.weight",), **more):
    return Finding(Severity.critical, 1.0, sites, onset, onset, STEPS - 1, "it did", **more)


def rich_run(**changes):
    """A run with every series that fixes read."""
    weights = [Site("weight", f"layers.{i}.weight", "Linear", (32, 16), order=i) for i in range(6)]
    updates = [Site("update", s.name, "Linear", s.shape, order=s.order) for s in weights]
    grads = [Site("grad", s.name, "Linear", s.shape, order=s.order) for s in weights]
    outputs = [
        Site("output", f"layers.{i}", kind, dtype="torch.float16", order=i)
        for i, kind in enumerate(("RNN", "Linear", "ReLU", "Linear", "Sigmoid", "Linear"))
    ]
    series = {
        "run.loss": np.r_[np.full(120, 2.0), np.full(80, 9.0)],
        "run.lr": np.r_[np.full(60, 0.3), np.full(140, 0.3)],
        "run.grad_norm": np.r_[np.full(120, 0.8), np.full(80, 40.0)],
        "batch.absmax": np.r_[np.full(120, 3.0), np.full(80, 3000.0)],
        "batch.rms": np.full(STEPS, 130.0),
        "batch.mean": np.full(STEPS, 110.0),
        "update.ratio": np.full((STEPS, 6), 0.31),
        "weight.norm": np.full((STEPS, 6), 4.0),
        "grad.norm": np.ones((STEPS, 6)) * 10.0 ** np.arange(6),
        "output.rms": np.ones((STEPS, 6)) * 10.0 ** np.arange(6),
        **changes,
    }
    groups = [{"lr": 0.3, "betas": [0.9, 0.999], "weight_decay": 0.5}]
    events = [
        Event("optimizer", 0.0, data={"name": "AdamW", "groups": groups}),
        Event("loss", 0.0, data={"function": "cross-entropy", "classes": 8}),
    ]
    sites = {"weight": weights, "update": updates, "grad": grads, "output": outputs, "batch": ["input"]}
    return run_of(series, sites=sites, events=events)


def change(id, run=None, of=None):
    return FIXES[id].propose(run or rich_run(), of or finding())


@pytest.mark.parametrize(
    ("id", "words", "code", "runtime"),
    [
        (
            "lower-learning-rate",
            "learning rate 0.3 → 0.01: the median update ratio was 0.31, where a healthy run stays below"
            " 0.03",
            "lr=0.01)",
            {"lr_scale": pytest.approx(1 / 30)},
        ),
        (
            "clip-gradients",
            "clip the gradient norm at 1: it was 0.8 in the median, and it rose to 40 at step 120",
            "max_norm=1)",
            {"clip_norm": 1.0},
        ),
        ("rollback", "at or before step 110", 'group["lr"] *= 0.032', {"rollback_to": 110.0}),
        (
            "lower-beta2",
            "β2 0.999 → 0.95: the second moment averages over 1000 steps",
            "betas=(0.9, 0.95)",
            {"beta2": 0.95},
        ),
        (
            "skip-batch",
            "look at the batch of step 120: the loss was 9 where 2 was usual",
            "deque(maxlen=128)",
            {"skip_above_z": 6.0},
        ),
        ("normalize-input", "(input − 110) / 69.3: its rms was 130", "(inputs - 110) / 69.28", {}),
        ("lower-weight-decay", "weight decay 0.5 → 0.002", "weight_decay=0.002", {"weight_decay": 0.002}),
        ("gated-recurrence", "LSTM instead of RNN at layers.0", "torch.nn.LSTM", {}),
        ("add-residual", "changes by 1.00 decades a layer", "x + block(x)", {}),
        ("rescale-init", "a factor of 10 a layer at step 0", "kaiming_normal_", {}),
        ("clean-data", "step 120 reached 3,000, 1,000 times the usual", "inputs.abs().max() < 6", {}),
        ("reinitialize-dead-units", "the dead units of layers.0", "get_submodule('layers.0')", {}),
        ("use-bfloat16", "layers.0 computes in float16", "dtype=torch.bfloat16", {}),
    ],
)
def test_a_fix_is_worded_with_the_numbers_of_the_run(id, words, code, runtime):
    proposed = change(id)
    assert words in proposed.text
    assert code in proposed.code
    assert {key: proposed.runtime[key] for key in runtime} == runtime


@pytest.mark.parametrize("fix", FIXES, ids=lambda fix: fix.id)
def test_the_code_of_every_fix_is_python(fix):
    proposed = fix.propose(rich_run(), finding(value=0.9))
    if proposed:
        ast.parse(proposed.code)


def test_most_fixes_have_something_to_say_of_a_run_with_everything_wrong():
    silent = [fix.id for fix in FIXES if fix.propose(rich_run(), finding()) is None]
    assert silent == [
        "anneal-kl",
        "attention-softcap",
        "balance-router",
        "batchnorm-momentum",
        "fix-schedule",
        "fp32-master-weights",
        "free-bits",
        "gradient-penalty",
        "loosen-clipping",
        "lower-epsilon",
        "qk-clip",
        "qk-norm",
        "raise-epsilon",
        "raise-learning-rate",
        "raise-weight-decay",
        "shrink-embedding-gradient",
        "z-loss",
    ]


def test_a_learning_rate_is_raised_where_updates_are_tiny():
    run = rich_run(**{"update.ratio": np.full((STEPS, 6), 3e-5), "run.lr": np.full(STEPS, 1e-5)})
    assert "1e-05 → 0.001" in change("raise-learning-rate", run).text


def test_a_schedule_that_never_left_zero_has_to_rise():
    proposed = change("fix-schedule", rich_run(**{"run.lr": np.zeros(STEPS)}))
    assert "zero at each of 200 steps" in proposed.text
    assert "(step + 1) / warmup" in proposed.code


def test_a_schedule_is_corrected_where_it_ran_out():
    run = rich_run(**{"run.lr": np.r_[np.linspace(1e-3, 1e-6, 80), np.full(120, 1e-6)]})
    proposed = change("fix-schedule", run)
    assert "over all 200 steps" in proposed.text
    assert "total_steps = 200" in proposed.code


@pytest.mark.parametrize(
    ("id", "changes", "of"),
    [
        ("rollback", {}, finding(onset=3)),
        ("clip-gradients", {"run.clipped_grad_norm": np.full(STEPS, 0.5)}, finding()),
        ("normalize-input", {"batch.rms": np.full(STEPS, 1.0)}, finding()),
        ("optimize-parameters", {}, finding(sites=())),
        ("reattach-graph", {}, finding(sites=())),
    ],
)
def test_a_fix_that_cannot_help_proposes_nothing(id, changes, of):
    assert change(id, rich_run(**changes), of) is None


@pytest.mark.parametrize(
    ("value", "nearest"), [(0.0097, 0.01), (0.0317, 0.03), (7.5, 10.0), (1.2e-5, 1e-5), (4.1, 5.0), (1, 1)]
)
def test_proposed_numbers_are_round(value, nearest):
    assert rounded(value) == pytest.approx(nearest)


@pytest.mark.parametrize(
    ("reached", "words", "scale"),
    [(True, "peak learning rate 0.3 → 0.01", 1 / 30), (False, "peak learning rate 0.3 → 0.005", 1 / 60)],
)
def test_a_fault_on_the_way_up_lowers_the_peak_of_the_schedule(reached, words, scale):
    """Half way up the updates are 0.31 of the weights; and at the peak, where that was reached."""
    ratio = np.full((STEPS, 6), 0.31)
    if not reached:
        ratio[80:] = np.nan
    run = rich_run(**{"run.lr": np.minimum(0.003 * (np.arange(STEPS) + 1), 0.3), "update.ratio": ratio})
    proposed = change("lower-learning-rate", run, finding(onset=49))
    assert words in proposed.text
    assert proposed.runtime["lr_scale"] == pytest.approx(scale, rel=0.01)


def test_a_fault_long_before_the_rate_jumps_is_not_one_on_the_way_up():
    run = rich_run(**{"run.lr": np.where(np.arange(STEPS) < 100, 0.003, 0.3)})
    assert change("lower-learning-rate", run, finding(onset=50)).text.startswith("learning rate 0.003 →")


@pytest.mark.parametrize(
    ("momenta", "text", "code"),
    [
        (
            (None, None),
            "a momentum of 0.1 for the 2 batch normalizations",
            "module.momentum = max(module.momentum or 0.0, 0.1)",
        ),
        (
            (0.001, 0.001),
            "a momentum of 0.1 in place of 0.001 for the 2 batch",
            "module.momentum = max(module.momentum or 0.0, 0.1)",
        ),
        (
            (0.001, 0.1),
            "a momentum of 0.1 in place of 0.001 for the 1 batch",
            "module.momentum = max(module.momentum or 0.0, 0.1)",
        ),
        (
            (0.0, 0.0),
            "a momentum of 0.1 for the 2 batch normalizations",
            "module.momentum = max(module.momentum or 0.0, 0.1)",
        ),
        ((0.1, 0.2), "computed anew over 50 batches", "module.reset_running_stats()"),
    ],
)
def test_no_momentum_is_advised_that_is_set_already(momenta, text, code):
    sites = [Site("normalization", f"norms.{i}", "BatchNorm2d") for i in range(2)]
    series = {"normalization.mismatch": np.ones((40, 2))}
    if momenta[0] is not None:
        series["normalization.momentum"] = np.tile(momenta, (40, 1))
    run = run_of(series, sites={"normalization": sites})
    change = FIXES["batchnorm-momentum"].propose(run, finding(facts={"mismatch": 1.0}))
    assert text in change.text
    assert code in change.code
    ast.parse(change.code)
