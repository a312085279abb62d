from __future__ import annotations

import inspect
import traceback

import pytest
import torch
from torch import nn
from torch.nn import _reduction
from torch.nn import functional as F
from torch.nn.functional import cross_entropy


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))


def evaluated(watch, model, evaluate, steps=4, at=1, loss=F.cross_entropy):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = []
    with watch(model, optimizer) as recording:
        for step in range(steps):
            optimizer.zero_grad()
            loss(model(torch.randn(8, 4)), torch.randint(3, (8,))).backward()
            optimizer.step()
            if step == at:
                model.eval()
                with torch.no_grad():
                    found.append(evaluate())
                model.train()
    return recording.run, found


def held_out(count=3, rows=8):
    return [(torch.randn(rows, 4), torch.randint(3, (rows,))) for _ in range(count)]


@pytest.mark.parametrize(
    "loss", [F.cross_entropy, cross_entropy, nn.CrossEntropyLoss()], ids=["module", "imported", "layer"]
)
def test_an_evaluation_between_steps_is_recorded_with_the_next_step(watch, healthy, model, loss):
    batches = held_out()
    run, found = evaluated(
        watch, model, lambda: sum(loss(model(x), y).item() for x, y in batches) / len(batches)
    )
    healthy(run)
    table = run.table("evaluation.loss")
    assert list(table.steps) == [2]
    assert table.names == ("cross-entropy",)
    assert table.first()[0] == pytest.approx(found[0], rel=1e-5)
    assert run.table("evaluation.batches").first()[0] == 3
    assert run.table("evaluation.training").first()[0] == 0
    assert run.table("evaluation.seconds").first()[0] > 0


def test_batches_count_by_their_rows_and_agreement_is_the_share_of_right_labels(watch, model):
    batches = held_out(1, 4) + held_out(1, 12)
    run, _ = evaluated(
        watch, model, lambda: [F.cross_entropy(model(x), y, reduction="sum") for x, y in batches]
    )
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert run.table("evaluation.batches").first()[0] == 2
    agreement = run.table("evaluation.agreement").first()[0]
    assert 0 <= agreement <= 1
    assert agreement * 16 == pytest.approx(round(float(agreement) * 16), abs=1e-4)
    assert len(x) == len(y) == 16


def test_losses_of_training_and_of_metrics_beside_it_are_none(watch, model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as recording:
        for _ in range(3):
            answer, y = model(torch.randn(8, 4)), torch.randint(3, (8,))
            F.cross_entropy(answer, y).backward()
            with torch.no_grad():
                F.cross_entropy(answer, y)
            optimizer.step()
    assert "evaluation.loss" not in recording.run
    assert [e for e in recording.run.events_of("coverage") if e.data["what"] == "evaluation"] == []


def test_a_loss_written_out_by_hand_is_not_seen_and_the_coverage_says_so(watch, model):
    run, _ = evaluated(watch, model, lambda: model(torch.randn(8, 4)).square().mean(), at=1)
    assert "evaluation.loss" not in run
    because = [e.data["because"] for e in run.events_of("coverage") if e.data["what"] == "evaluation"]
    assert because == [
        "the model was called without gradients, and no loss function of torch.nn.functional followed"
    ]


def test_torch_is_as_it_was_and_a_failing_loss_has_no_frame_of_ours(watch, model):
    original = _reduction.get_enum

    def fails():
        model(torch.randn(8, 4))
        assert _reduction.get_enum is not original
        with pytest.raises(RuntimeError) as raised:
            F.cross_entropy(torch.randn(8, 3), torch.full((8,), 2**40).float())
        files = [frame.filename for frame in traceback.extract_tb(raised.value.__traceback__)]
        assert not any("stabdiag/capture" in file for file in files)
        with pytest.raises(ValueError, match="not a valid value"):
            F.mse_loss(torch.ones(2), torch.ones(2), reduction="all")

    run, _ = evaluated(watch, model, fails)
    assert _reduction.get_enum is original
    assert list(run.events_of("recorder-error")) == []


def test_random_numbers_and_results_are_the_scripts_own(watch, model):
    x, y = held_out(1)[0]

    def evaluate():
        before = torch.get_rng_state()
        value = F.cross_entropy(model(x), y)
        assert torch.equal(before, torch.get_rng_state())
        return value

    run, found = evaluated(watch, model, evaluate, steps=2, at=0)
    assert found[0].shape == ()
    assert run.table("evaluation.loss").first()[0] == pytest.approx(found[0].item(), rel=1e-6)


def test_all_losses_that_are_listed_ask_what_their_reduction_means():
    from stabdiag.capture.losses import LOSSES

    for name in LOSSES:
        assert "_Reduction.get_enum(" in inspect.getsource(getattr(F, name)), name


def test_an_error_of_ours_gives_torch_its_helper_back(watch, model, monkeypatch):
    from stabdiag.capture.probes import evaluation

    original = _reduction.get_enum
    monkeypatch.setattr(evaluation, "mean_loss", lambda *_: 1 / 0)
    x, y = held_out(1)[0]
    run, found = evaluated(watch, model, lambda: F.cross_entropy(model(x), y).item())
    assert found
    assert _reduction.get_enum is original
    assert [e.data["probe"] for e in run.events_of("recorder-error")] == ["evaluation"]


def acting(watch, model, every, calls, steps=64, loss=None):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as recording:
        for step in range(steps):
            if step % every == 0:
                with torch.no_grad():
                    for _ in range(calls):
                        answer = model(torch.randn(8, 4))
                        if loss is not None:
                            loss(answer, torch.randint(3, (8,)))
            optimizer.zero_grad()
            F.cross_entropy(model(torch.randn(8, 4)), torch.randint(3, (8,))).backward()
            optimizer.step()
    return list(recording.run.events_of("acting"))


@pytest.mark.parametrize(("every", "calls"), [(1, 1), (8, 20)], ids=["each step", "in stretches"])
def test_a_model_whose_answers_are_asked_for_between_steps_acts(watch, model, every, calls):
    (event,) = acting(watch, model, every, calls)
    assert event.data["calls"] >= event.data["steps"] / 2


def test_a_model_that_is_evaluated_does_not_act(watch, model):
    assert not acting(watch, model, 1, 1, loss=F.cross_entropy)
    assert not acting(watch, model, 8, 3)
    assert not acting(watch, model, 16, 20)
