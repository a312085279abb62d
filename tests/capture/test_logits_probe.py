from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F


class Head(nn.Module):
    """Logits inside, the loss too where targets come along."""

    def __init__(self, inside: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 16)
        self.head = nn.Linear(16, 11)
        self.inside = inside

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None):
        logits = self.head(self.embedding(x))
        if not self.inside:
            return logits
        return F.cross_entropy(logits[:, :-1].reshape(-1, 11), y[:, 1:].reshape(-1))


def expected(logits: torch.Tensor) -> dict[str, float]:
    rows = logits.double().reshape(-1, logits.shape[-1])
    logs = F.log_softmax(rows, 1)
    return {
        "log_z": torch.logsumexp(rows, 1).mean().item(),
        "mean": rows.mean().item(),
        "max": rows.max().item(),
        "entropy": -(logs.exp() * logs).sum(1).mean().item(),
    }


@pytest.mark.parametrize("inside", [True, False])
def test_the_output_that_the_loss_is_computed_from_is_found_and_measured(watch, at, healthy, inside):
    model = Head(inside)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as recording:
        for _ in range(3):
            x = torch.randint(11, (4, 7))
            logits = model.head(model.embedding(x)).detach()
            loss = model(x, x) if inside else F.cross_entropy(model(x).flatten(0, 1), x.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    healthy(recording.run)
    for statistic, value in expected(logits).items():
        measured = at(recording.run, f"logits.{statistic}", -1)
        assert measured == {"head": pytest.approx(value, rel=1e-4, abs=1e-5)}
    assert at(recording.run, "logits.nonfinite", -1) == {"head": 0}


def test_a_cross_entropy_that_is_written_by_hand_leads_to_them_too(watch, at, healthy):
    model = Head(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as recording:
        x = torch.randint(11, (4, 7))
        logits = model(x)
        (logits.logsumexp(-1) - logits.gather(-1, x[..., None])[..., 0]).mean().backward()
        optimizer.step()
    healthy(recording.run)
    value = expected(logits.detach())["log_z"]
    assert at(recording.run, "logits.log_z") == {"head": pytest.approx(value, rel=1e-4)}


def test_a_penalty_on_other_scores_makes_these_no_logits(watch, at):
    """As the z-loss of a router."""
    model = nn.ModuleDict({"gate": nn.Linear(8, 4), "head": nn.Linear(8, 11)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as recording:
        for _ in range(2):
            x, y = torch.randn(5, 8), torch.randint(11, (5,))
            penalty = model["gate"](x).logsumexp(-1).square().mean()
            (F.cross_entropy(model["head"](x), y) + penalty).backward()
            optimizer.step()
    assert set(at(recording.run, "logits.log_z", -1)) == {"head"}


def test_images_have_their_classes_in_the_second_dimension(watch, at):
    model = nn.Sequential(nn.Conv2d(3, 5, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as recording:
        for _ in range(2):
            images, labels = torch.randn(2, 3, 4, 4), torch.randint(5, (2, 4, 4))
            logits = model(images)
            F.cross_entropy(logits, labels).backward()
            optimizer.step()
    value = expected(logits.detach().movedim(1, -1))["log_z"]
    assert at(recording.run, "logits.log_z", -1)["0"] == pytest.approx(value, rel=1e-4)


def test_equal_logits_are_as_uncertain_as_can_be(watch, at):
    model = nn.Linear(3, 8)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with watch(model, optimizer) as recording:
        for _ in range(2):
            F.cross_entropy(model(torch.randn(4, 3)), torch.tensor([0, 1, 2, 3])).backward()
            optimizer.step()
    assert at(recording.run, "logits.entropy", -1)["Linear"] == pytest.approx(math.log(8), rel=1e-5)


def test_a_loss_without_a_softmax_has_no_logits(watch, healthy):
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as recording:
        for _ in range(2):
            model(torch.randn(4, 3)).square().mean().backward()
            optimizer.step()
    healthy(recording.run)
    assert "logits.log_z" not in recording.run


def test_infinite_logits_are_told_as_such(watch, at, healthy):
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with watch(model, optimizer) as recording:
        for step in range(3):
            x = torch.full((4, 3), math.inf if step == 2 else 1.0)
            F.cross_entropy(model(x), torch.tensor([0, 1, 0, 1])).backward()
            optimizer.step()
    healthy(recording.run)
    assert at(recording.run, "logits.nonfinite", -1) == {"Linear": 1}
