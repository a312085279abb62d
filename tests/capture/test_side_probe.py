from __future__ import annotations

import pytest
import torch
from torch import nn


class Maker(nn.Linear):
    pass


class Judge(nn.Linear):
    pass


def test_each_side_has_its_loss_and_its_gradient(watch, at, healthy):
    maker, judge = Maker(4, 8), Judge(8, 1)
    of_judge, of_maker = (torch.optim.SGD(m.parameters(), lr=0.1) for m in (judge, maker))
    expected = []
    with watch([maker, judge], [of_judge, of_maker]) as recording:
        for _ in range(3):
            row = []
            for optimizer, model, sign in ((of_judge, judge, 1.0), (of_maker, maker, -1.0)):
                optimizer.zero_grad()
                loss = sign * judge(maker(torch.randn(16, 4))).mean()
                loss.backward()
                norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
                optimizer.step()
                row += [loss.item(), norm.item()]
            expected.append(row)
    run = recording.run
    healthy(run)
    assert {site.name for site in run.sites("side")} == {"Judge", "Maker"}
    assert run.table("side.loss").column("Judge").tolist() == pytest.approx([r[0] for r in expected])
    assert run.table("side.grad_norm").column("Judge").tolist() == pytest.approx([r[1] for r in expected])
    # A row ends where the first optimizer steps: the other's step belongs to the next one.
    assert run.table("side.loss").column("Maker")[1:].tolist() == pytest.approx([r[2] for r in expected][:2])


def test_two_optimizers_of_one_loss_are_no_game(watch):
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 1))
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.1) for part in model]
    with watch(model, optimizers) as recording:
        for _ in range(3):
            model(torch.randn(8, 4)).square().mean().backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    assert len(recording.run.sites("side")) < 2


def test_the_gradient_of_a_side_with_complex_weights_has_the_length_of_its_parts(watch, at, healthy):
    maker, judge = Maker(4, 8, dtype=torch.complex64), Judge(8, 1, dtype=torch.complex64)
    of_judge, of_maker = (torch.optim.SGD(m.parameters(), lr=0.1) for m in (judge, maker))
    with watch([maker, judge], [of_judge, of_maker]) as recording:
        for _ in range(2):
            for optimizer in (of_judge, of_maker):
                optimizer.zero_grad()
                judge(maker(torch.randn(16, 4, dtype=torch.complex64))).abs().mean().backward()
                norm = torch.cat([p.grad.flatten() for p in judge.parameters()]).norm()
                if optimizer is of_judge:
                    expected = norm.item()
                optimizer.step()
    healthy(recording.run)
    assert at(recording.run, "side.grad_norm", -1)["Judge"] == pytest.approx(expected, rel=1e-5)
