from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from stabdiag.capture.probes.run import MOST_GROUPS, resident_mib


def test_the_loss_is_the_sum_of_the_micro_batches(watch, at):
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as recording:
        losses = []
        for _ in range(3):
            loss = model(torch.randn(4, 1)).square().mean() / 3
            loss.backward()
            losses.append(loss.item())
        optimizer.step()
    assert at(recording.run, "run.loss")["run"] == pytest.approx(sum(losses))
    assert at(recording.run, "run.micro_batches")["run"] == 3


def test_several_scalar_roots_are_one_loss_and_other_roots_are_none(watch):
    model = nn.Linear(1, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with watch(model, optimizer) as recording:
        out = model(torch.ones(1, 1))
        torch.autograd.backward([out.sum(), out.prod()])
        optimizer.step()
        expected = (out.sum() + out.prod()).item()
        out = model(torch.ones(1, 1))
        out.backward(torch.ones(1, 2))
        optimizer.step()
    first, second = recording.run.table("run.loss").first()
    assert first == pytest.approx(expected)
    assert np.isnan(second)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_counted(watch, value):
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as recording:
        for factor in (1.0, value):
            optimizer.zero_grad()
            (model(torch.ones(1, 1)).square().sum() * factor).backward()
            optimizer.step()
    assert recording.run.table("run.nonfinite").first().tolist() == [0, 1]
    assert not np.isfinite(recording.run.table("run.loss").first()[1])


def test_the_learning_rate_is_that_of_the_step_and_each_further_group_has_its_own(watch):
    model = nn.Linear(2, 1)
    groups = [{"params": [model.weight]}, {"params": [model.bias], "lr": 0.5}]
    optimizer = torch.optim.AdamW(groups, lr=0.25)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    with watch(model, optimizer) as recording:
        for _ in range(3):
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
            schedule.step()
    rates = recording.run.table("run.lr")
    assert rates.names == ("run", "AdamW.0.1")
    np.testing.assert_array_equal(rates.values, [[0.25, 0.5], [0.125, 0.25], [0.0625, 0.125]])


def test_of_an_optimizer_a_parameter_not_all_are_told(watch, healthy):
    model = nn.Sequential(*[nn.Linear(1, 1) for _ in range(20)])
    optimizers = [torch.optim.SGD([parameter], lr=0.1) for parameter in model.parameters()]
    with watch(model, optimizers) as recording:
        model(torch.ones(1, 1)).sum().backward()
        for optimizer in optimizers:
            optimizer.step()
    healthy(recording.run)
    assert len(recording.run.sites("run")) <= MOST_GROUPS


def test_two_models_have_their_losses_apart(watch):
    maker, judge = nn.Linear(1, 1), nn.Linear(1, 1)
    of_judge, of_maker = (torch.optim.SGD(net.parameters(), lr=0.0) for net in (judge, maker))
    with watch([judge, maker], [of_judge, of_maker]) as recording:
        for _ in range(4):
            (judge(torch.ones(1, 1)) * 0 + 2).sum().backward()
            of_judge.step()
            (maker(torch.ones(1, 1)) * 0 + 3).sum().backward()
            of_maker.step()
    assert recording.run.table("run.loss").column("SGD.1.0")[1:].tolist() == [3, 3, 3]


@pytest.mark.parametrize("pace", [1, 3])
def test_optimizers_that_share_a_backward_pass_are_told_together(watch, healthy, pace):
    """As where Muon takes the matrices and AdamW the rest."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    optimizers = [
        torch.optim.SGD(part.parameters(), lr=lr) for part, lr in zip(model, (0.1, 0.2), strict=True)
    ]
    told = []
    with watch(model, optimizers) as recording:
        for step in range(8):
            loss = model(torch.ones(1, 2)).square().sum()
            model.zero_grad()
            loss.backward()
            told.append(loss.item())
            optimizers[0].step()
            if step % pace == 0:
                optimizers[1].step()
    run = recording.run
    healthy(run)
    np.testing.assert_allclose(run.table("run.loss").first(), told, rtol=1e-6)
    assert (run.table("run.micro_batches").first() == 1).all()
    assert np.isfinite(run.table("update.ratio").column("0.weight")).all()
    if pace == 1:
        assert np.isfinite(run.table("update.ratio").column("1.weight")).tolist() == [False] + [True] * 7
        assert np.isfinite(run.table("run.lr").column("SGD.1.0")).sum() == 7


def test_a_step_that_a_gradient_scaler_withholds_is_a_row_of_its_own(session, found, healthy):
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    losses = []
    for step in range(6):
        loss = model(torch.ones(1, 1)).square().mean() * (float("inf") if step == 2 else 1)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    run = found()
    healthy(run)
    assert run.table("run.skipped").first().tolist() == [0, 0, 1, 0, 0, 0]
    assert run.table("run.loss_scale").first().tolist() == [4, 4, 4, 2, 2, 2]
    np.testing.assert_allclose(run.table("run.loss").first(), losses, rtol=1e-6)
    assert [event.step for event in run.events_of("skipped-step")] == [2]


def test_a_scaler_of_a_training_that_is_over_scales_no_other_loss(session, found):
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    idle = torch.amp.GradScaler("cpu", init_scale=256.0)
    idle.scale(torch.ones(1))
    losses = []
    for _ in range(3):
        loss = model(torch.ones(1, 1)).square().mean()
        optimizer.zero_grad()
        (2.0 * loss).backward()
        optimizer.step()
        losses.append(2.0 * loss.item())
    session.end()
    np.testing.assert_allclose(found().table("run.loss").first(), losses, rtol=1e-6)


def kept_elsewhere():
    """What offloading to another memory does to the tensors that a graph saves."""
    return torch.autograd.graph.saved_tensors_hooks(lambda x: x.clone(), lambda x: x)


@pytest.mark.parametrize("around", [nullcontext, kept_elsewhere])
def test_losses_are_told_without_the_scale_as_long_as_they_are_scaled(session, found, around):
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    losses = []
    for step in range(6):
        optimizer.zero_grad()
        scaled = step < 3
        with around() if scaled else nullcontext():
            loss = model(torch.ones(1, 1)).square().mean()
            (scaler.scale(loss) if scaled else loss).backward()
        scaler.step(optimizer) if scaled else optimizer.step()
        scaler.update() if scaled else None
        losses.append(loss.item())
    session.end()
    np.testing.assert_allclose(found().table("run.loss").first(), losses, rtol=1e-6)


@pytest.mark.parametrize("parts", [1, 4])
def test_a_loss_that_is_divided_after_it_was_scaled_is_told_without_the_scale(session, found, parts):
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    loss = model(torch.ones(1, 1)).square().mean()
    (scaler.scale(loss) / parts).backward()
    scaler.step(optimizer)
    session.end()
    np.testing.assert_allclose(found().table("run.loss").first(), [loss.item() / parts], rtol=1e-6)


def test_a_withheld_step_at_the_very_end_is_a_row_too(session, found):
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for step in range(3):
        loss = model(torch.ones(1, 1)).square().mean() * (float("inf") if step == 2 else 1)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    session.end()
    assert found().table("run.skipped").first().tolist() == [0, 0, 1]
    assert [event.step for event in found().events_of("skipped-step")] == [2]


def test_time_memory_and_overhead_are_told(watch, train):
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with watch(model, optimizer) as recording:
        train(model, optimizer, torch.randn(5, 2, 4))
    run = recording.run
    spent, took = run.table("run.overhead").first(), run.table("run.step_time").first()
    assert (spent > 0).all()
    assert (took > 0).all()
    assert (run.table("run.memory").first() > 50).all()  # MiB; torch alone is more
    assert resident_mib() == pytest.approx(run.table("run.memory").first()[-1], rel=0.5)


def test_a_closure_that_is_called_often_is_one_loss(watch):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=5)
    x, told = torch.randn(8, 2), []

    def closure():
        optimizer.zero_grad()
        loss = (model(x) - 1).square().mean()
        loss.backward()
        return loss

    with watch(model, optimizer) as recording:
        told = [optimizer.step(closure).item() for _ in range(4)]
    np.testing.assert_allclose(recording.run.table("run.loss").first(), told, rtol=1e-6)


def test_a_step_that_fails_does_not_end_the_recording(watch, healthy):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def closure(fails):
        optimizer.zero_grad()
        loss = model(torch.ones(1, 2)).square().sum()
        if fails:
            raise RuntimeError("out of memory")
        loss.backward()
        return loss

    with watch(model, optimizer) as recording:
        for step in range(8):
            if step == 3:
                with pytest.raises(RuntimeError, match="out of memory"):
                    optimizer.step(lambda: closure(True))
            else:
                optimizer.step(lambda: closure(False))
    healthy(recording.run)
    assert recording.run.steps == 7


def test_a_step_that_calls_its_parents_counts_once_and_whole(watch):
    class Halving(torch.optim.SGD):
        @torch.no_grad()
        def step(self, closure=None):
            super().step(closure)
            for parameter in self.param_groups[0]["params"]:
                parameter.mul_(0.5)

    model = nn.Linear(2, 1, bias=False)
    optimizer = Halving(model.parameters(), lr=0.0)
    with watch(model, optimizer) as recording:
        for _ in range(4):
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
    assert recording.run.table("update.ratio").column("weight").tolist() == [0.5] * 4
    assert recording.run.steps == 4
    assert (recording.run.table("run.micro_batches").first() == 1).all()
