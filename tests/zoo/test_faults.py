"""Each fault does what it says, and nothing before its step: checked on the training itself."""

from __future__ import annotations

import math
from dataclasses import replace
from fnmatch import fnmatchcase

import pytest
import torch

from stabdiag.zoo.architecture import ARCHITECTURES
from stabdiag.zoo.fault import FAULTS

ALL = [fault.id for fault in FAULTS]
ACTS_FROM_THE_START = {
    "stale-second-moment",
    "gradient-wakes",
    "rare-token-burst",
    "schedule-runs-ahead",
    "peak-too-high",
}
"""What they do until their step is what makes that step a fault."""
LEAVE_THE_WEIGHTS = {
    "memory-leak",
    "stalled-loader",
    "slow-rank",
    "desynced-replica",
    "batchnorm-lag",
    "tiny-batches",
}
"""These harm the machine, another rank, or evaluations; or late in the run alone."""
STEPS = 20
SLOW = {"destroyed-features", "stalled-loader"}


def weights(training):
    return {name: p.detach().clone() for name, p in training.model.named_parameters()}


@pytest.mark.parametrize("name", [name for name in ALL if name not in SLOW])
def test_it_can_be_planted_somewhere_at_some_step(name, planted):
    fault = FAULTS[name]
    training, truth = planted(fault)
    assert 0 <= truth.step < training.steps
    names = [
        "rank-1",
        *(n for n, _ in training.model.named_modules()),
        *weights(training),
        type(training.model).__name__,
    ]
    for glob in truth.sites:
        assert any(fnmatchcase(place, glob) for place in names), glob


@pytest.mark.parametrize("name", [n for n in ALL if n not in SLOW and n not in ACTS_FROM_THE_START])
def test_before_its_step_it_is_its_healthy_twin(name, planted, sound):
    training, truth = planted(FAULTS[name])
    if truth.step < 2:
        pytest.skip("it acts from the start")
    twin = sound(FAULTS[name])
    twin.lr, twin.final, twin.clip = training.lr, training.final, training.clip
    twin.prepare()
    for run in (training, twin):
        torch.manual_seed(0)
        run.run()
    before = [torch.tensor(run.losses[: truth.step]) for run in (training, twin)]
    torch.testing.assert_close(*before)


@pytest.mark.parametrize("name", [n for n in ALL if n not in SLOW | LEAVE_THE_WEIGHTS])
def test_it_changes_what_is_learned(name, planted, sound):
    training, _ = planted(FAULTS[name])
    twin = sound(FAULTS[name])
    twin.prepare()
    for run in (training, twin):
        torch.manual_seed(0)
        run.run()
    after = weights(twin)
    assert any(n not in after or not torch.equal(w, after[n]) for n, w in weights(training).items())


def test_lr_too_high_multiplies_the_rate_and_never_lets_it_fall(planted, sound):
    fault = FAULTS["lr-too-high"]
    training, _ = planted(fault, 100.0)
    assert training.rate(0) == training.rate(19) == pytest.approx(100 * sound(fault).lr)


def test_schedule_runs_ahead_to_zero(planted):
    training, truth = planted(FAULTS["schedule-runs-ahead"], steps=200)
    assert training.rate(truth.step + 60) == pytest.approx(0, abs=1e-9)
    assert training.rate(30) > 0


def test_negative_lr_climbs_the_loss(planted):
    training, truth = planted(FAULTS["negative-lr"], steps=60)
    training.run()
    assert training.rate(truth.step) < 0 < training.rate(truth.step - 1)
    assert training.losses[-1] > min(training.losses[: truth.step])


def test_gradient_wakes_at_its_step(planted):
    training, truth = planted(FAULTS["gradient-wakes"])
    weight = dict(training.model.named_parameters())[truth.sites[0]]
    norms = []
    training.after.append(lambda step: norms.append(weight.grad.norm().item()))
    training.run()
    assert norms[truth.step] > 30 * norms[truth.step - 1]


def test_growing_head_grows_from_its_step_on(planted):
    training, truth = planted(FAULTS["growing-head"], 1.06)
    weight = dict(training.model.named_parameters())[truth.sites[1]]
    norms = []
    training.before.append(lambda step: norms.append(weight.detach().norm().item()))
    training.run()
    assert norms[truth.step + 3] > 1.1 * norms[truth.step - 1]


@pytest.mark.parametrize("name", ["growing-queries", "sharp-attention", "idle-attention"])
def test_attention_is_planted_in_queries_alone(name, planted, sound):
    fault = FAULTS[name]
    training, truth = planted(fault)
    twin = sound(fault)
    for hook in training.before:
        hook(truth.step)
    changed = {n for n, w in weights(training).items() if not torch.equal(w, weights(twin)[n])}
    assert len(changed) == 1
    assert fnmatchcase(changed.pop(), f"{truth.sites[0]}.*")


def test_flipped_bit_changes_one_weight(planted):
    training, truth = planted(FAULTS["flipped-bit"])
    before = weights(training)
    for hook in training.before:
        hook(truth.step)
    differing = sum(int((w != before[n]).sum()) for n, w in weights(training).items())
    assert differing == 1


def test_uninitialized_layers_hold_absurd_numbers_and_the_loss_too(planted):
    fault = replace(FAULTS["uninitialized-layers"], needs=("vectors", "classes"))
    training, truth = planted(fault)
    held = [w for n, w in weights(training).items() if fnmatchcase(n, truth.sites[0]) and w.dim() >= 2]
    assert all(w.abs().max() > 1e20 for w in held)
    training.run()
    assert not math.isfinite(training.losses[-1]) or training.losses[-1] > 1e3


def test_dead_relu_never_passes_a_gradient(planted):
    training, truth = planted(FAULTS["dead-relu"])
    training.run()
    dead = [p.grad for n, p in training.model.named_parameters() if fnmatchcase(n, truth.sites[0])]
    assert any(not gradient.any() for gradient in dead)


def test_frozen_block_receives_gradients_and_never_moves(planted):
    training, truth = planted(FAULTS["frozen-block"])
    before = weights(training)
    training.run()
    for name, p in training.model.named_parameters():
        if fnmatchcase(name, truth.sites[0]):
            assert torch.equal(p, before[name])
            assert p.requires_grad
            assert p.grad is not None


def test_detached_block_keeps_gradients_from_all_before_it(planted):
    training, truth = planted(FAULTS["detached-block"])
    training.run()
    without = {n for n, p in training.model.named_parameters() if p.grad is None}
    assert without
    of_blocks = {n for n in without if not n.startswith("inputs.")}
    assert of_blocks
    assert all(any(fnmatchcase(n, glob) for glob in truth.sites) for n in of_blocks)


def test_forgotten_zero_grad_sums_all_gradients(planted, sound):
    training, _ = planted(FAULTS["forgotten-zero-grad"])
    training.rate, training.clip = lambda step: 0.0, 0.0
    training.steps = 3
    training.run()
    total = sum(training.loss(training.parts.batches(i)) for i in range(3))
    expected = torch.autograd.grad(total, list(training.model.parameters()))
    torch.testing.assert_close([p.grad for p in training.model.parameters()], list(expected))


@pytest.mark.parametrize("name", ["corrupt-batch", "permuted-batch", "nan-in-batch"])
def test_one_batch_alone_is_bad(name, planted, sound):
    fault = FAULTS[name]
    training, truth = planted(fault)
    clean = sound(fault).parts.batches
    differs = [
        i
        for i in range(STEPS)
        if not all(torch.equal(a, b) for a, b in zip(training.parts.batches(i), clean(i), strict=True))
    ]
    assert differs == [truth.step]


def test_shuffled_targets_keep_how_often_each_comes(planted, sound):
    fault = FAULTS["shuffled-targets"]
    training, _ = planted(fault)
    mixed, clean = training.parts.batches(4)[-1], sound(fault).parts.batches(4)[-1]
    assert not torch.equal(mixed, clean)
    torch.testing.assert_close(mixed.sort(0).values, clean.sort(0).values)


def test_root_of_zero_breaks_gradients_before_the_loss(planted):
    training, truth = planted(FAULTS["root-of-zero"])
    training.run()
    assert math.isfinite(training.losses[truth.step])
    assert not math.isfinite(training.losses[truth.step + 1])


def test_unsafe_operation_is_finite_until_its_step_and_never_after(planted):
    training, truth = planted(FAULTS["unsafe-operation"])
    training.run()
    finite = [math.isfinite(loss) for loss in training.losses]
    assert finite == [True] * truth.step + [False] * (training.steps - truth.step)


def test_thrashing_scaler_withholds_steps(planted):
    training, truth = planted(FAULTS["thrashing-scaler"])
    training.run()
    withheld = training.steps - max(int(state["step"]) for state in training.optimizers[0].state.values())
    assert withheld >= (training.steps - truth.step) / 4
    assert training.scaler.get_scale() < 1024


def test_lost_optimizer_state_begins_anew(planted):
    training, truth = planted(FAULTS["lost-optimizer-state"])
    training.run()
    counts = {float(state["step"]) for state in training.optimizers[0].state.values()}
    assert counts == {float(training.steps - truth.step)}


@pytest.mark.parametrize(("optimizer", "expected"), [("rmsprop", 0.01), ("adafactor", (0.01, 1e-3))])
def test_large_epsilon_is_there_when_the_optimizer_is_made(optimizer, expected):
    training = ARCHITECTURES["regression"].training(optimizer, 3, None, 20)
    FAULTS["large-epsilon"].plant(training, 0.01)
    training.prepare()
    assert {group["eps"] for group in training.optimizers[0].param_groups} == {expected}


def test_hot_layer_alone_moves_faster(planted):
    training, truth = planted(FAULTS["hot-layer"])
    rates = {}
    training.run()
    for group in training.optimizers[0].param_groups:
        for p in group["params"]:
            rates[id(p)] = group["lr"]
    hot = {n for n, p in training.model.named_parameters() if rates[id(p)] == max(rates.values())}
    assert hot == {n for n, _ in training.model.named_parameters() if fnmatchcase(n, truth.sites[0])}
    assert max(rates.values()) == pytest.approx(300 * min(rates.values()))


def test_unbalanced_router_sends_most_tokens_to_one_expert(planted):
    training, _ = planted(FAULTS["unbalanced-router"])
    training.steps = 2
    training.run()
    moe = next(m for m in training.model.modules() if hasattr(m, "router"))
    tokens = torch.randn(256, 48)
    shares = moe.router(tokens).argmax(-1).bincount(minlength=8) / 256
    assert shares.max() > 0.95


def test_stays_in_eval_leaves_dropout_off(planted):
    training, _ = planted(FAULTS["stays-in-eval"])
    training.run()
    assert not training.model.training


def test_every_fault_says_what_it_plants_and_what_a_right_diagnosis_is():
    for fault in FAULTS:
        assert fault.doc.endswith("."), fault.id
        assert fault.signatures, fault.id
        assert fault.found_from in {0.0, math.inf, *fault.doses}, fault.id
        assert not {*fault.signatures} & {*fault.follows}, fault.id


def test_every_cause_of_the_catalogue_is_the_truth_of_some_fault():
    from stabdiag.analysis.catalogue import CAUSES

    planted = {cause for fault in FAULTS for cause in fault.causes}
    assert {cause.id for cause in CAUSES} - planted <= {"benign-transient"}


def test_every_signature_has_a_fault_that_it_names():
    from stabdiag.analysis.catalogue import SIGNATURES

    planted = {name for fault in FAULTS for name in (*fault.signatures, *fault.follows)}
    assert {signature.id for signature in SIGNATURES} - planted == set()
