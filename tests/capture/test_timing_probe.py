from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch import nn

from stabdiag.capture.probes.timing import LEAST


class Slow(nn.Module):
    """Takes 20 ms forward and 40 ms backward."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.02)
        out = x * self.weight
        out.register_hook(lambda _: time.sleep(0.04))
        return out


def one(recording, series):
    return recording.run.table(series).first()


def test_the_time_of_a_step_is_split(watch, healthy):
    model = Slow()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.register_step_post_hook(lambda *_: time.sleep(0.06))
    with watch(model, optimizer) as recording:
        for _ in range(2):
            time.sleep(0.08)
            model(torch.ones(3)).sum().backward()
            optimizer.step()
    healthy(recording.run)
    parts = {
        name: one(recording, f"run.{name}_time") for name in ("data", "forward", "backward", "optimizer")
    }
    for name, least in {"data": 0.08, "forward": 0.02, "backward": 0.04}.items():
        assert (parts[name] >= least).all(), name
    total = np.sum(list(parts.values()), axis=0)
    assert (total <= one(recording, "run.step_time") + 1e-3).all()


def test_micro_batches_add_up(watch):
    model = Slow()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as recording:
        for _ in range(3):
            model(torch.ones(3)).sum().backward()
        optimizer.step()
    assert one(recording, "run.forward_time")[0] >= 3 * 0.02
    assert one(recording, "run.backward_time")[0] >= 3 * 0.04


@pytest.mark.parametrize("pause", [0.0, 1.1])
def test_a_step_that_stalls_is_an_event(watch, pause):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as recording:
        for step in range(LEAST + 3):
            time.sleep(pause if step == LEAST + 1 else 0)
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
    stalls = list(recording.run.events_of("stall"))
    assert [event.step for event in stalls] == ([LEAST + 1] if pause else [])
    assert all(event.data["seconds"] >= pause for event in stalls)


def test_a_loop_that_calls_no_module_has_no_split(watch):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as recording:
        (torch.ones(1, 2) @ model.weight.t()).sum().backward()
        optimizer.step()
    assert np.isnan(one(recording, "run.forward_time")).all()
