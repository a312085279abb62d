from __future__ import annotations

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.drop = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)
        self.idle, self.last = nn.Dropout(0.0), nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.idle(self.drop(self.norm(self.first(x)))))


def test_modes_are_written_when_they_change_and_evaluations_are_counted(watch, healthy):
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, every=100) as recording:
        for step in range(30):
            if step == 10:
                with torch.no_grad():
                    for _ in range(3):
                        model(torch.randn(8, 4))
            if step == 20:
                model.eval()
            optimizer.zero_grad()
            model(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
    run = recording.run
    healthy(run)
    table = run.table("mode.training")
    assert set(table.names) == {"Net", "norm", "drop"}
    assert table.steps[table.steps >= 5].tolist() == [10, 11, 20]
    assert table.column("drop")[table.steps < 20].tolist() == [1.0] * (table.steps < 20).sum()
    assert table.column("Net")[-1] == table.column("norm")[-1] == 0.0
    evaluations = run.table("mode.evaluations").column("Net")
    assert evaluations[table.steps == 10].tolist() == [3.0]
    assert run.table("mode.evaluating").column("drop")[table.steps == 10].tolist() == [1.0]


def test_dropout_by_a_function_is_known_by_its_rate_and_frozen_parts_are_not_trained(watch):
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.attention_dropout = nn.Linear(4, 4), 0.1

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.dropout(self.linear(x), self.attention_dropout, self.training)

    model = nn.Sequential(Block(), Block())
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model[1].parameters(), lr=0.1)
    with watch(model, optimizer) as recording:
        for _ in range(2):
            model(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
    sites = {site.name: site for site in recording.run.sites("mode")}
    assert set(sites) == {"Sequential", "0", "1"}
    assert (sites["0"].trainable, sites["1"].trainable) == (False, True)


def test_a_model_without_modes_has_none(watch):
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as recording:
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
    assert "mode.training" not in recording.run
