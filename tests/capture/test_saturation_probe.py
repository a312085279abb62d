from __future__ import annotations

import pytest
import torch
from torch import nn

from stabdiag.stats.saturation import saturation


class Mixed(nn.Module):
    """Tanhs by a function, and a sigmoid as a module."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.gate = nn.Linear(6, 16), nn.Linear(16, 16), nn.Sigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = torch.tanh(self.first(20 * x))
        b = torch.tanh(self.second(a))
        c = torch.tanh(b + 1)
        self.kept = [a.detach(), b.detach(), c.detach(), x]
        return c.sum(1) * self.gate(self.second(a)).mean(1)


def test_each_is_told_by_the_module_that_its_argument_comes_from(watch, at, healthy):
    model = Mixed()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with watch(model, optimizer) as recording:
        for _ in range(3):
            model(torch.randn(32, 6)).mean().backward()
            optimizer.step()
    healthy(recording.run)
    for row in (0, -1):
        assert set(at(recording.run, "saturation.share", row)) == {"first", "second", "Mixed[2]"}
    share, units = (at(recording.run, f"saturation.{name}", -1) for name in ("share", "units"))
    for name, kept in (("first", model.kept[0]), ("Mixed[2]", model.kept[2])):
        assert [share[name], units[name]] == pytest.approx(saturation(kept, -1.0, 1.0).tolist(), abs=1e-6)
    assert share["first"] > 0.5 > share["second"]


def test_a_cell_that_is_called_often_has_one_site(watch, at):
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.eye(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(x @ self.weight)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = Cell()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(5):
                x = self.cell(x)
            return x

    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as recording:
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
    assert list(at(recording.run, "saturation.share")) == ["cell"]
