"""Each intervention against the loop into which a hand has written it: equal to the bit."""

from __future__ import annotations

import importlib.util
import math
import statistics
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_

from stabdiag.intervene.intervention import INTERVENTIONS

_spec = importlib.util.spec_from_file_location("loops", Path(__file__).with_name("loops.py"))
loops = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(loops)


def setting(key, value, where=lambda group: True):
    """A hand that changes a setting before the step, and puts it back after it for the scheduler."""
    held = []

    def before(optimizer, model, step, loss):
        held[:] = [(group, group[key]) for group in optimizer.param_groups if where(group)]
        for group, old in held:
            group[key] = value(old, step)

    def after(optimizer, model, step, loss):
        for group, old in held:
            group[key] = old

    return before, after


def clip(optimizer, model, step, loss):
    clip_grad_norm_(model.parameters(), 0.5)


def clip_each(optimizer, model, step, loss):
    for parameter in model.parameters():
        clip_grad_norm_([parameter], 0.1)


def adaptive():
    norms = []

    def before(optimizer, model, step, loss):
        limit = 1.1 * statistics.median(norms) if len(norms) >= 8 else math.inf
        norm = clip_grad_norm_(model.parameters(), limit).item()
        if math.isfinite(norm):
            norms.append(min(norm, limit))

    return before


def stable(second, floor):
    """Updates divided by RMS_t over 0.9, where that is above 1."""
    old = []

    def before(optimizer, model, step, loss):
        old[:] = [p.detach().clone() for p in model.parameters()]

    def after(optimizer, model, step, loss):
        with torch.no_grad():
            for p, w in zip(model.parameters(), old, strict=True):
                state = optimizer.state[p]
                rms = (p.grad.square() / second(state).clamp(min=floor)).mean().sqrt().item() / 0.9
                if rms > 1:
                    p.copy_(w + (p - w) / rms)

    return before, after


def corrected(state):
    return state["exp_avg_sq"] / (1 - 0.999 ** state["step"])


def not_finite(optimizer, model, step, loss):
    return not math.isfinite(loss)


def loud_batch():
    recent = []

    def before(optimizer, model, step, loss):
        known = len(recent) > 31
        limit = statistics.mean(recent) + 6 * statistics.stdev(recent) if known else math.inf
        if loss <= limit:
            recent.append(loss)
            return False
        return True

    return before


def forget(optimizer, model, step, loss):
    if step == 7:
        optimizer.state.clear()


def gather():
    sums = {}

    def before(optimizer, model, step, loss):
        for p in model.parameters():
            sums[p] = sums[p] + p.grad if p in sums else p.grad.clone()
        if step % 3 < 2:
            return True
        for p in model.parameters():
            p.grad = sums.pop(p) / 3
        return False

    return before


def with_z(logits, targets):
    plain = F.cross_entropy(logits, targets)
    return plain + 0.01 * torch.logsumexp(logits, -1).square().mean()


def shrink(optimizer, model, step, loss):
    model[0].weight.grad.mul_(0.25)


def leave_out(optimizer, model, step, loss):
    return 5 <= step < 8


def rmsprop(model):
    return torch.optim.RMSprop(model.parameters(), lr=0.01, alpha=0.99, eps=1e-3)


def adafactor(model):
    return torch.optim.Adafactor(model.parameters(), lr=0.01)


OF_OTHER_OPTIMIZERS = {
    ("lower-beta2=0.9", rmsprop): setting("alpha", lambda alpha, step: 0.9),
    ("lower-epsilon=1e-10", rmsprop): setting("eps", lambda eps, step: 1e-10),
    ("clip-updates=0.9", rmsprop): stable(lambda state: state["square_avg"], 1e-6),
    ("raise-epsilon=0.5", adafactor): setting("eps", lambda eps, step: (0.5, eps[1])),
}


ORACLES = {
    "lower-learning-rate=0.3": setting("lr", lambda lr, step: lr * 0.3),
    "lower-learning-rate=0.3@6": setting("lr", lambda lr, step: lr * 0.3 if step >= 6 else lr),
    "raise-learning-rate=2": setting("lr", lambda lr, step: lr * 2),
    "add-warmup=10": setting("lr", lambda lr, step: lr * ((step + 1) / 10) if step < 9 else lr),
    "lower-beta2=0.9": setting("betas", lambda betas, step: (betas[0], 0.9)),
    "lower-epsilon=1e-10": setting("eps", lambda eps, step: 1e-10),
    "raise-epsilon=0.01": setting("eps", lambda eps, step: 0.01),
    "lower-weight-decay": setting("weight_decay", lambda wd, step: 0.0),
    "raise-weight-decay=0.5": setting("weight_decay", lambda wd, step: 0.5, lambda g: g["weight_decay"] > 0),
    "regularize=0.5": setting("weight_decay", lambda wd, step: 0.5, lambda g: g["weight_decay"] > 0),
    "clip-gradients=0.5": (clip,),
    "clip-each-gradient=0.1": (clip_each,),
    "adaptive-clipping=1.1": (adaptive(),),
    "clip-updates=0.9": stable(corrected, 1e-16),
    "reset-optimizer-state=7": (forget,),
    "larger-batch=3": (gather(),),
    "shrink-embedding-gradient=0.25": (shrink,),
    "rollback=3@5": (leave_out,),
}


@pytest.mark.parametrize("request_", ORACLES)
def test_what_is_applied_does_to_the_bit_what_a_hand_would_have_written(applying, told, request_):
    plain, *_ = loops.train()
    expected, losses, rates = loops.train(*ORACLES[request_])
    assert not loops.same(plain, expected)  # the oracle does something
    with applying(request_):
        weights, its_losses, its_rates = loops.train()
    assert told("ended")
    assert its_losses == losses
    assert its_rates == rates  # the script and its scheduler see their own numbers
    assert loops.same(weights, expected)


@pytest.mark.parametrize(("request_", "make"), OF_OTHER_OPTIMIZERS)
def test_what_is_applied_takes_the_words_of_the_optimizer(applying, told, request_, make):
    plain, *_ = loops.train(make=make)
    expected, *_ = loops.train(*OF_OTHER_OPTIMIZERS[request_, make], make=make)
    assert not loops.same(plain, expected)
    with applying(request_):
        weights, *_ = loops.train(make=make)
    assert told("ended")
    assert loops.same(weights, expected)


def test_going_back_undoes_what_was_written_into_the_weights(applying):
    def corrupted(optimizer, model, step, loss):
        if step == 6:
            model[2].weight.data[0, 0] = 1e9

    spoiled, *_ = loops.train(corrupted)
    expected, *_ = loops.train(leave_out)
    with applying("rollback=3@5"):
        weights, *_ = loops.train(corrupted)
    assert not loops.same(spoiled, expected)
    assert loops.same(weights, expected)


def test_a_z_loss_by_its_gradient_is_that_of_a_loss_with_the_term(applying, told):
    plain, *_ = loops.train()
    expected, *_ = loops.train(loss_of=with_z)
    with applying("z-loss=0.01"):
        weights, *_ = loops.train()
    assert told("added")
    assert not loops.same(plain, expected)
    assert loops.same(weights, expected)


def cross_entropy_sum(logits, targets):
    return F.cross_entropy(logits, targets, reduction="sum") / 8


def written_out(logits, targets):
    return (logits.logsumexp(-1) - logits.gather(-1, targets[:, None])[:, 0]).mean()


@pytest.mark.parametrize("function", [F.cross_entropy, cross_entropy_sum, written_out])
@pytest.mark.parametrize("factor", [0.25, 1024.0])
def test_a_z_loss_is_scaled_as_the_script_scales_its_cross_entropy(applying, told, function, factor):
    """By accumulation, or a scale against underflow."""

    def with_term(logits, targets):
        return (function(logits, targets) + 0.01 * torch.logsumexp(logits, -1).square().mean()) * factor

    def without(logits, targets):
        return function(logits, targets) * factor

    expected, *_ = loops.train(loss_of=with_term, make=loops.sgd)
    with applying("z-loss=0.01"):
        weights, *_ = loops.train(loss_of=without, make=loops.sgd)
    assert told("added")
    assert all(torch.allclose(a, b, rtol=1e-5) for a, b in zip(weights, expected, strict=True))


def test_the_clipping_of_the_script_is_loosened_and_no_other(applying, told, recorded):
    def tight(optimizer, model, step, loss):
        clip_grad_norm_(model.parameters(), 0.01)

    def both(optimizer, model, step, loss):
        clip_grad_norm_(model.parameters(), 0.5)
        clip_grad_norm_(model.parameters(), 0.3)

    expected, *_ = loops.train(both, make=loops.sgd)
    with applying("loosen-clipping=0.5", "clip-gradients=0.3"):
        weights, *_ = loops.train(tight, make=loops.sgd)
    assert told("loosened")
    assert loops.same(weights, expected)
    assert recorded().table("run.clipped_grad_norm").first() == pytest.approx(0.3, rel=1e-3)


def test_a_step_that_is_not_finite_leaves_no_trace(applying, told):
    expected, *_ = loops.train(not_finite, bad=(4, 9))
    with applying("skip-nonfinite-steps"):
        weights, *_ = loops.train(bad=(4, 9))
    assert [event.step for event in told("skipped")] == [4, 9]
    assert all(torch.isfinite(w).all() for w in weights)
    assert loops.same(weights, expected)


def test_an_outlying_batch_is_left_out_as_the_advised_code_does(applying, told):
    expected, *_ = loops.train(loud_batch(), steps=48, bad=(40,), loud=(44,))
    with applying("skip-batch=6"):
        weights, *_ = loops.train(steps=48, bad=(40,), loud=(44,))
    assert [event.step for event in told("skipped")] == [40, 44]
    assert loops.same(weights, expected)


def test_several_act_in_the_order_in_which_they_were_asked_for(applying, told):
    def both(optimizer, model, step, loss):
        clip(optimizer, model, step, loss)
        clip_each(optimizer, model, step, loss)

    expected, *_ = loops.train(both)
    with applying("clip-gradients=0.5", "clip-each-gradient=0.1"):
        weights, *_ = loops.train()
    assert loops.same(weights, expected)


def test_each_intervention_has_an_oracle():
    elsewhere = {"z-loss", "skip-nonfinite-steps", "skip-batch", "qk-clip", "loss-scaling", "early-stopping"}
    elsewhere |= {"zero-gradients", "loosen-clipping"}
    assert {r.partition("=")[0].partition("@")[0] for r in ORACLES} | elsewhere == {
        i.id for i in INTERVENTIONS
    }
