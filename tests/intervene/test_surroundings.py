"""Interventions among gradient scalers, accumulation, closures, several and all kinds of optimizers."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_

LEFT_OUT = ("Optimizer", "LBFGS", "SparseAdam", "Muon")  # Muon: two-dimensional parameters only
OPTIMIZERS = {
    name: cls
    for name, cls in vars(torch.optim).items()
    if isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer) and name not in LEFT_OUT
}
WAYS = [
    (name, way)
    for name, cls in OPTIMIZERS.items()
    for way in ({}, {"foreach": True}, {"fused": True})
    if way.keys() <= inspect.signature(cls).parameters.keys()
]


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def weights(model):
    return [p.detach().clone() for p in model.parameters()]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def steps(model, optimizer, count=8, bad=(), skip=(), scaler=None, micro=1, clip=None):
    torch.manual_seed(1)
    for step in range(count):
        optimizer.zero_grad()
        for _ in range(micro):
            loss = model(torch.randn(8, 4)).square().mean() / micro
            loss = loss * float("nan") if step in bad else loss
            (scaler.scale(loss) if scaler else loss).backward()
        if clip:
            if scaler:
                scaler.unscale_(optimizer)
            clip_grad_norm_(model.parameters(), clip)
        if step not in skip:
            scaler.step(optimizer) if scaler else optimizer.step()
        if scaler:
            scaler.update()
    return weights(model)


@pytest.mark.parametrize(("name", "how"), WAYS)
def test_a_skipped_step_leaves_every_optimizer_as_it_was(applying, told, name, how):
    def make(model):
        return OPTIMIZERS[name](model.parameters(), lr=0.01, **how)

    model = small()
    optimizer = make(model)
    expected = steps(model, optimizer, bad=(3,), skip=(3,))
    state = copy.deepcopy(optimizer.state_dict())
    with applying("skip-nonfinite-steps"):
        model = small()
        optimizer = make(model)
        found = steps(model, optimizer, bad=(3,))
    assert len(told("skipped")) == 1
    assert same(found, expected)
    assert str(optimizer.state_dict()) == str(state)


@pytest.mark.parametrize("fused", [False, True])
def test_under_a_gradient_scaler_the_gradients_are_clipped_unscaled(applying, told, fused):
    def make(model):
        return torch.optim.AdamW(model.parameters(), lr=0.01, fused=fused)

    model = small()
    expected = steps(model, make(model), scaler=torch.amp.GradScaler("cpu"), clip=0.01)
    with applying("clip-gradients=0.01"):
        model = small()
        found = steps(model, make(model), scaler=torch.amp.GradScaler("cpu"))
    assert told("clipped")
    assert same(found, expected)


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_scaler_withholds_is_its_own_affair(applying, told, fused):
    def make(model):
        return torch.optim.AdamW(model.parameters(), lr=0.01, fused=fused)

    model = small()
    expected = steps(model, make(model), bad=(3,), scaler=torch.amp.GradScaler("cpu"))
    with applying("skip-nonfinite-steps", guard=True):
        model = small()
        found = steps(model, make(model), bad=(3,), scaler=torch.amp.GradScaler("cpu"))
    assert told("skipped") == []
    assert same(found, expected)


def test_the_gradient_that_counts_is_that_of_all_micro_batches(applying, told):
    model = small()
    expected = steps(model, torch.optim.SGD(model.parameters(), lr=0.1), micro=3, clip=0.1)
    with applying("clip-gradients=0.1"):
        model = small()
        found = steps(model, torch.optim.SGD(model.parameters(), lr=0.1), micro=3)
    assert same(found, expected)


def test_a_loss_scale_never_falls_below_the_floor(applying, told):
    seen = []
    with applying("loss-scaling=4"):
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        model = small()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for step in range(8):
            optimizer.zero_grad()
            loss = model(torch.randn(8, 4)).square().mean() * (float("inf") if step < 5 else 1.0)
            seen.append(scaler.get_scale())
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    assert seen == [8.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0]
    assert len(told("raised")) == 4


def test_gradients_that_a_closure_computes_are_seen(applying, told):
    def run(clip=None):
        model = small()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        torch.manual_seed(1)
        for _ in range(6):
            x = torch.randn(8, 4)

            def closure(x=x):
                optimizer.zero_grad()
                loss = model(x).square().mean()
                loss.backward()
                if clip:
                    clip_grad_norm_(model.parameters(), clip)
                return loss

            assert optimizer.step(closure).item() > 0
            optimizer.step(closure=closure)
        return weights(model)

    expected = run(0.1)
    with applying("clip-gradients=0.1"):
        found = run()
    assert same(found, expected)


def test_lbfgs_is_left_alone_and_the_coverage_says_so(applying, recorded):
    def run():
        model = small()
        optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1)
        torch.manual_seed(1)
        x = torch.randn(8, 4)

        def closure():
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            return loss

        for _ in range(3):
            optimizer.step(closure)
        return weights(model)

    expected = run()
    with applying("clip-gradients=0.001", guard=True):
        found = run()
    assert same(found, expected)
    because = [e.data["because"] for e in recorded().events_of("coverage")]
    assert sum("evaluates its closure many times" in b for b in because) == 2


def test_each_of_several_optimizers_has_its_own_history(applying, told):
    with applying("skip-nonfinite-steps"):
        maker, judge = small(), nn.Linear(1, 1)
        of_maker = torch.optim.Adam(maker.parameters())
        of_judge = torch.optim.Adam(judge.parameters())
        for step in range(6):
            made = maker(torch.randn(8, 4))
            of_judge.zero_grad()
            F.softplus(judge(made.detach())).mean().backward()
            of_judge.step()
            before = weights(maker), weights(judge)
            of_maker.zero_grad()
            (F.softplus(-judge(made)).mean() * (float("nan") if step == 3 else 1)).backward()
            of_maker.step()
            assert same(weights(judge), before[1])
            assert same(weights(maker), before[0]) == (step == 3)
    # The judge is the clock: what the maker does after it belongs to the next row.
    assert [event.step for event in told("skipped")] == [4]


def test_a_step_that_raises_leaves_no_setting_behind(applying):
    class Broken(torch.optim.SGD):
        def step(self, closure=None):
            raise MemoryError("planted")

    with applying("lower-learning-rate=0.1"):
        model = small()
        optimizer = Broken(model.parameters(), lr=1.0)
        for _ in range(2):
            model(torch.randn(8, 4)).square().mean().backward()
            with pytest.raises(MemoryError):
                optimizer.step()
            assert optimizer.param_groups[0]["lr"] == 0.1
    assert optimizer.param_groups[0]["lr"] == 1.0


def test_an_error_in_an_intervention_switches_it_off_and_training_goes_on(applying, recorded, monkeypatch):
    from stabdiag.intervene.interventions.clip_gradients import ClipGradients

    model = small()
    expected = steps(model, torch.optim.SGD(model.parameters(), lr=0.1))
    monkeypatch.setattr(ClipGradients, "on_gradients", lambda *_: 1 / 0)
    with applying("clip-gradients=0.1"):
        model = small()
        found = steps(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert same(found, expected)
    errors = [event.data["probe"] for event in recorded().events_of("recorder-error")]
    assert errors == ["intervention clip-gradients"]


def test_what_an_optimizer_does_not_have_is_told(applying, recorded):
    with applying("lower-beta2=0.9", "clip-updates"):
        model = small()
        steps(model, torch.optim.SGD(model.parameters(), lr=0.1))
    because = {e.data["what"]: e.data["because"] for e in recorded().events_of("coverage")}
    assert because["intervention lower-beta2"] == "SGD has no betas that could be set"
    assert because["intervention clip-updates"] == "SGD keeps no second moment"


def test_the_recorder_sees_the_settings_and_gradients_that_the_optimizer_saw(applying, recorded):
    with applying("lower-learning-rate=0.5", "clip-gradients=0.001"):
        model = small()
        steps(model, torch.optim.SGD(model.parameters(), lr=0.1))
    run = recorded()
    assert run.table("run.lr").first() == pytest.approx(0.05)
    assert run.table("run.grad_norm").first().min() > 0.01
    assert run.table("run.clipped_grad_norm").first() == pytest.approx(0.001, rel=0.01)


def test_updates_of_complex_weights_are_clipped_as_those_of_their_parts(applying):
    def stepped(parts):
        torch.manual_seed(0)
        values = torch.randn(5, dtype=torch.complex64)
        weight = nn.Parameter(torch.view_as_real(values).clone() if parts else values)
        model = nn.Module()
        model.register_parameter("weight", weight)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        for size in (1.0, 1.0, 30.0):
            optimizer.zero_grad()
            (size * weight.abs().square()).sum().backward()
            optimizer.step()
        return weight.detach() if parts else torch.view_as_real(weight.detach())

    with applying("clip-updates=0.5"):
        own = stepped(parts=False)
    with applying("clip-updates=0.5"):
        torch.testing.assert_close(own, stepped(parts=True))
    assert not torch.allclose(own, stepped(parts=False))
