from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

CLASSES = 7


def net(outputs=CLASSES):
    return nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, outputs))


def trained(watch, model, batches, loss, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with watch(model, optimizer, **options) as recording:
        for x, y in batches:
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()
    return recording.run


def labelled(count=3, rows=32):
    return [(torch.randn(rows, 5), torch.randint(CLASSES, (rows,))) for _ in range(count)]


def test_each_samples_loss_is_what_float64_gives(watch, at, healthy):
    model, batches = net(), labelled()
    run = trained(watch, model, batches, F.cross_entropy)
    healthy(run)
    assert [(s.kind, s.name) for s in run.sites("targets")] == [("targets", "cross-entropy")]
    x, y = batches[-1]
    logs = F.log_softmax(model.double()(x.double()), 1).detach()
    losses = -logs[torch.arange(32), y].numpy()
    entropy = -(logs.exp() * logs).sum(1).numpy()
    middle = np.median(losses)
    expected = {
        "loss": losses.mean(),
        "spread": losses.std(),
        "max": losses.max(),
        "worst": losses.argmax(),
        "outlying": (losses.max() - middle) / (1.4826 * np.median(np.abs(losses - middle))),
        "surprise": (losses - entropy).mean(),
        "surprised": (losses - entropy > 2).mean(),
        "agreement": (logs.argmax(1) == y).double().mean().item(),
    }
    for statistic, value in expected.items():
        assert at(run, f"targets.{statistic}", -1)["cross-entropy"] == pytest.approx(
            value, rel=1e-4, abs=1e-6
        )


def test_the_constant_answer_to_labels_costs_their_corrected_entropy(watch, at):
    batches = labelled(4)
    run = trained(watch, net(), batches, F.cross_entropy)
    labels = torch.cat([y for _, y in batches])
    shares = torch.bincount(labels, minlength=CLASSES).double() / len(labels)
    entropy = -(shares[shares > 0] * shares[shares > 0].log()).sum().item()
    corrected = entropy + ((shares > 0).sum().item() - 1) / (2 * len(labels))
    assert at(run, "targets.constant", -1)["cross-entropy"] == pytest.approx(corrected, rel=1e-5)
    assert at(run, "targets.seen", -1)["cross-entropy"] == len(labels)


def test_the_constant_answer_to_values_costs_their_variance(watch, at):
    batches = [(torch.randn(16, 5), 3 + torch.randn(16, 2) * torch.tensor([1.0, 4.0])) for _ in range(5)]
    run = trained(watch, net(2), batches, F.mse_loss)
    values = torch.cat([y for _, y in batches]).double()
    assert at(run, "targets.constant", -1)["mean-squared-error"] == pytest.approx(
        values.var(0).mean().item(), rel=1e-4
    )
    loss = at(run, "targets.loss", -1)["mean-squared-error"]
    assert loss == pytest.approx(at(run, "run.loss", -1)["run"], rel=1e-5)


def test_the_targets_themselves_have_a_size(watch, at):
    batches = [(torch.randn(16, 5), 7 + torch.randn(16, 2)) for _ in range(2)]
    run = trained(watch, net(2), batches, F.mse_loss)
    expected = batches[-1][1].double().square().mean().sqrt().item()
    assert at(run, "targets.rms", -1)["mean-squared-error"] == pytest.approx(expected, rel=1e-5)
    labels = trained(watch, net(), labelled(), F.cross_entropy)
    assert math.isnan(at(labels, "targets.rms", -1)["cross-entropy"])


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("smooth-absolute-error", lambda a, y, **more: F.smooth_l1_loss(a, y, beta=0.3, **more)),
        ("huber", lambda a, y, **more: F.huber_loss(a, y, delta=2.5, **more)),
    ],
)
def test_a_robust_errors_samples_are_told_and_no_constant_answer(watch, at, healthy, name, loss):
    model, batches = net(2), [(torch.randn(16, 5), 3 * torch.randn(16, 2)) for _ in range(2)]
    run = trained(watch, model, batches, loss)
    healthy(run)
    x, y = batches[-1]
    losses = loss(model(x), y, reduction="none").mean(1)
    assert at(run, "targets.max", -1)[name] == pytest.approx(losses.max().item(), rel=1e-5)
    assert math.isnan(at(run, "targets.constant", -1)[name])


def test_the_constant_answer_to_bits_costs_the_entropy_of_their_means(watch, at):
    batches = [(torch.randn(64, 5), (torch.rand(64, 2) < torch.tensor([0.2, 0.5])).float()) for _ in range(4)]
    run = trained(watch, net(2), batches, F.binary_cross_entropy_with_logits)
    share = torch.cat([y for _, y in batches]).double().mean(0)
    entropy = -(share * share.log() + (1 - share) * (1 - share).log()).mean().item()
    assert at(run, "targets.constant", -1)["binary-cross-entropy"] == pytest.approx(entropy, rel=1e-4)


def test_the_loss_is_in_the_functions_own_unit_whatever_the_script_makes_of_it(watch, at):
    model, batches = net(), labelled()
    plain = trained(watch, model, batches, F.cross_entropy)
    made = trained(watch, model, batches, lambda a, y: 0.5 * F.cross_entropy(a, y, reduction="sum") + 3.0)
    assert at(made, "targets.loss", -1) == pytest.approx(at(plain, "targets.loss", -1), rel=1e-5)


def test_ignored_labels_count_nowhere(watch, at, healthy):
    model = net()
    x, y = torch.randn(32, 5), torch.randint(CLASSES, (32,))
    y[::2] = -100
    run = trained(watch, model, [(x, y)] * 2, F.cross_entropy)
    healthy(run)
    mean = F.cross_entropy(model(x), y).item()
    assert at(run, "targets.loss", -1)["cross-entropy"] == pytest.approx(mean, rel=1e-5)
    assert at(run, "targets.seen", -1)["cross-entropy"] == 32


def test_the_sequence_with_the_largest_loss_is_found_by_its_place_in_the_batch(watch, at):
    head = nn.Linear(4, CLASSES, bias=False)
    with torch.no_grad():
        head.weight.zero_()
        head.weight[0, 0] = 9.0
    x = torch.zeros(6, 10, 4)
    x[..., 0] = 1.0
    y = torch.zeros(6, 10, dtype=torch.long)
    y[4] = 3
    run = trained(watch, head, [(x, y)] * 2, lambda a, b: F.cross_entropy(a.flatten(0, 1), b.flatten()))
    assert at(run, "targets.worst", -1)["cross-entropy"] == 4
    assert at(run, "targets.surprised", -1)["cross-entropy"] == pytest.approx(1 / 6)


def test_pixels_of_a_picture_are_one_sample(watch, at, healthy):
    model = nn.Conv2d(3, CLASSES, 1)
    x, y = torch.randn(5, 3, 4, 4), torch.randint(CLASSES, (5, 4, 4))
    run = trained(watch, model, [(x, y)] * 2, F.cross_entropy)
    healthy(run)
    losses = F.cross_entropy(model(x), y, reduction="none").mean((1, 2))
    assert at(run, "targets.max", -1)["cross-entropy"] == pytest.approx(losses.max().item(), rel=1e-5)


def test_samples_are_counted_over_micro_batches(watch, at):
    model = net()
    batches = labelled(2, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with watch(model, optimizer) as recording:
        for _ in range(2):
            for x, y in batches:
                (F.cross_entropy(model(x), y) / 2).backward()
            optimizer.step()
    losses = torch.cat([F.cross_entropy(model(x), y, reduction="none") for x, y in batches])
    assert at(recording.run, "targets.worst", -1)["cross-entropy"] == losses.argmax().item()
    assert at(recording.run, "targets.loss", -1)["cross-entropy"] == pytest.approx(losses.mean().item())


@pytest.mark.parametrize(
    "loss",
    [
        lambda a, y: (a - 1).square().mean(),
        lambda a, y: checkpoint(F.cross_entropy, a, y, use_reentrant=True),
        lambda a, y: -(a.log_softmax(1) * F.one_hot(y, CLASSES)).sum(1).mean(),
    ],
    ids=["written out", "checkpointed", "soft labels"],
)
def test_of_what_the_graph_does_not_tell_there_is_nothing(watch, healthy, loss):
    run = trained(watch, net(), labelled(), loss)
    healthy(run)
    assert "targets.loss" not in run


def test_hooks_of_the_script_on_saved_tensors_are_not_run(watch, healthy):
    unpacked = []

    def loss(answer, labels):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: unpacked.append(1) or t):
            return F.cross_entropy(answer, labels)

    model = net()
    x, y = labelled(1)[0]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with watch(model, optimizer) as recording:
        value = loss(model(x), y)
        value.backward()
        optimizer.step()
    healthy(recording.run)
    alone = len(unpacked)
    unpacked.clear()
    loss(model(x), y).backward()
    assert alone == len(unpacked)


def test_a_loss_that_is_infinite_is_told_as_such(watch, at, healthy):
    model = net()
    with torch.no_grad():
        model[2].bias[0] = math.inf
    x, y = labelled(1)[0]
    run = trained(watch, model, [(x, y)] * 2, F.cross_entropy)
    healthy(run)
    assert math.isnan(at(run, "targets.loss", -1)["cross-entropy"])


def varieties(watch, labels, classes, *, batch):
    """Of each batch, and of all seen so far."""
    model = nn.Linear(3, classes)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, every=1) as recording:
        for part in labels.split(batch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(torch.randn(len(part), 3)), part).backward()
            optimizer.step()
    return [recording.run.table(f"targets.{name}").first() for name in ("variety", "variety_seen")]


def differing(labels):
    """The share of pairs, pair by pair."""
    return np.mean([a != b for i, a in enumerate(labels) for b in labels[:i]])


@pytest.mark.parametrize("sort", [False, True])
def test_a_batch_of_one_kind_varies_less_than_all(watch, sort):
    torch.manual_seed(0)
    labels = torch.randint(4, (320,))
    if sort:
        labels = labels.sort().values
    own, whole = varieties(watch, labels, 4, batch=16)
    parts = labels.split(16)
    np.testing.assert_allclose(own, [differing(part.tolist()) for part in parts], atol=1e-6)
    assert whole[-1] == pytest.approx(differing(labels.tolist()), abs=1e-6)
    assert (np.mean(own) < 0.2 * whole[-1]) == sort


@pytest.mark.parametrize(
    ("classes", "draw"),
    [(2, lambda n: (torch.rand(n) < 0.02).long()), (200, lambda n: torch.randint(200, (n,)))],
    ids=["a rare class", "more classes than samples"],
)
def test_batches_that_are_drawn_vary_as_much_as_all_whatever_the_classes(watch, classes, draw):
    torch.manual_seed(1)
    own, whole = varieties(watch, draw(960), classes, batch=16)
    assert np.mean(own) == pytest.approx(whole[-1], rel=0.1)


def test_values_vary_by_their_variance(watch, at):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    targets = torch.randn(20, 8, 2) + torch.arange(20)[:, None, None]
    with watch(model, optimizer, every=1) as recording:
        for part in targets:
            nn.functional.mse_loss(model(torch.randn(8, 3)), part).backward()
            optimizer.step()
    own = recording.run.table("targets.variety").first()
    np.testing.assert_allclose(own, targets.var(1).mean(1).numpy(), rtol=1e-4)
    whole = at(recording.run, "targets.variety_seen", -1)["mean-squared-error"]
    assert whole == pytest.approx(targets.reshape(-1, 2).var(0).mean().item(), rel=1e-4)


@pytest.mark.parametrize(
    "targets", [torch.zeros(1, dtype=torch.long), torch.zeros(4, 6, dtype=torch.long)], ids=str
)
def test_one_target_and_many_of_one_sample_tell_nothing_of_an_order(watch, targets):
    model = nn.Linear(3, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    shape = (*targets.shape, 3)
    with watch(model, optimizer, every=1) as recording:
        for _ in range(3):
            answer = model(torch.randn(shape)).movedim(-1, 1)
            nn.functional.cross_entropy(answer, targets).backward()
            optimizer.step()
    assert np.isnan(recording.run.table("targets.variety").first()).all()
