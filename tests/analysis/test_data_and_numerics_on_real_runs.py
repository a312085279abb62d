"""Short real trainings with a fault of the data or the numerics, and the same without."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import stabdiag
from stabdiag.analysis.diagnose import diagnose
from stabdiag.core.finding import Severity

OF_DATA = (
    "bad-batch",
    "context-blind-plateau",
    "data-repetition",
    "distribution-shift-or-resume",
    "label-noise-memorization",
    "loss-scale-thrash",
    "low-precision-loss",
    "memory-growth",
    "overfitting",
    "silent-data-corruption",
    "unnormalized-input",
)


class Task:
    """Six classes of 16 numbers, learned by a small network."""

    def __init__(self, seed=0, dtype=torch.float32):
        torch.set_num_threads(1)
        torch.manual_seed(seed)
        self.teacher = torch.randn(16, 6)
        self.model = nn.Sequential(
            nn.Linear(16, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 6)
        )
        self.model.to(dtype)
        self.dtype = dtype

    def batch(self, rows=32):
        x = torch.randn(rows, 16)
        return x, (x @ self.teacher).argmax(1)

    def train(self, folder, steps=300, *, change=lambda step, x, y: (x, y), lr=2e-3, data=None, every=10,
    evaluate=0,
              before_step=lambda step: None, scaled=False):  # fmt: skip
        optimizer = torch.optim.Adam(self.model.parameters(), lr=lr)
        held_out = self.batch(256)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=20, enabled=scaled)
        with stabdiag.watch(self.model, optimizer, log_dir=folder, every=every) as recording:
            for step in range(steps):
                x, y = change(step, *(self.batch() if data is None else data(step)))
                loss = F.cross_entropy(self.model(x.to(self.dtype)).float(), y)
                optimizer.zero_grad()
                scaler.scale(loss).backward()
                before_step(step)
                scaler.step(optimizer)
                scaler.update()
                if evaluate and step % evaluate == evaluate - 1:
                    with torch.no_grad():
                        F.cross_entropy(self.model(held_out[0]), held_out[1])
        return recording.run


def found(run, name):
    return [f for f in diagnose(run).findings if f.signature == name]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("every", [1, 10])
def test_a_healthy_training_has_none_of_these(tmp_path, seed, every):
    run = Task(seed).train(tmp_path, every=every, evaluate=20)
    found = [f for f in diagnose(run).findings if f.signature in OF_DATA]
    assert [f.message for f in found if f.severity > Severity.info] == []


def test_shuffled_targets_leave_the_loss_at_what_their_frequencies_cost(tmp_path):
    run = Task().train(tmp_path, change=lambda step, x, y: (x, y[torch.randperm(len(y))]))
    (finding,) = found(run, "context-blind-plateau")
    assert finding.causes[0].id == "wrong-targets"
    assert finding.facts["constant"] < math.log(6)
    assert finding.onset_step < 100


def test_a_batch_of_wrong_labels_is_named_by_its_fingerprint(tmp_path):
    run = Task().train(tmp_path, change=lambda step, x, y: (x, (y + 3) % 6 if step == 200 else y))
    (finding,) = found(run, "bad-batch")
    assert (finding.severity, finding.onset_step, finding.sites) == (Severity.warning, 200, ("input",))
    assert finding.facts["seen_at"] == -1
    assert f"{int(finding.facts['fingerprint']):06x}" in finding.message
    assert 0 <= finding.facts["sample"] < 32


def test_a_bad_batch_that_came_before_says_what_it_did_then(tmp_path):
    task = Task()
    fixed = torch.randn(32, 16), torch.randint(6, (32,))
    run = task.train(tmp_path, data=lambda step: fixed if step in (150, 220) else task.batch())
    findings = found(run, "bad-batch")
    assert [f.onset_step for f in findings] == [150, 220]
    assert findings[1].facts["seen_at"] == 150
    assert findings[1].facts["loss_then"] == pytest.approx(run.table("run.loss").first()[150])


def test_few_batches_over_and_over_are_told_with_what_they_did(tmp_path):
    task = Task()
    pool = [task.batch(16) for _ in range(4)]
    run = task.train(tmp_path, 400, data=lambda step: pool[step % 4], evaluate=20)
    (finding,) = found(run, "data-repetition")
    assert finding.facts["distinct"] == 4
    assert finding.onset_step == 4
    assert finding.severity is Severity.warning
    incident = next(i for i in diagnose(run).incidents if i.severity)
    assert diagnose(run).findings[incident.root].signature == "data-repetition"


def test_inputs_of_the_size_of_pixels_are_told_before_what_they_do(tmp_path):
    run = Task().train(tmp_path, 150, change=lambda step, x, y: (100 + 60 * x, y))
    diagnosis = diagnose(run)
    assert diagnosis.findings[diagnosis.incidents[0].root].signature == "unnormalized-input"
    assert diagnosis.incidents[0].cause.id == "unnormalized-input"
    assert diagnosis.incidents[0].fixes[0].id == "normalize-input"


def test_data_that_move_are_told_with_their_step(tmp_path):
    run = Task().train(tmp_path, change=lambda step, x, y: (x + 4.0 * (step >= 180), y), evaluate=20)
    (finding,) = found(run, "distribution-shift-or-resume")
    assert finding.onset_step == 180
    assert finding.sites == ("input",)
    assert finding.causes[0].id == "distribution-shift"


def test_weights_of_sixteen_bits_swallow_small_updates(tmp_path):
    slow = Task(dtype=torch.bfloat16).train(tmp_path / "slow", 100, lr=1e-5)
    (finding,) = found(slow, "low-precision-loss")
    assert finding.causes[0].id == "low-precision-weights"
    assert found(Task().train(tmp_path / "wide", 100, lr=1e-5), "low-precision-loss") == []


def test_a_flipped_bit_of_a_weight_is_more_than_training_can_do(tmp_path):
    task = Task()
    bits = task.model[2].weight.data.view(torch.int32).view(-1)

    def flip(step):
        if step == 120:
            bits[5] = (bits[5] & ~(255 << 23)) | (140 << 23)  # an exponent of thousands

    run = task.train(tmp_path, 200, before_step=flip, every=1)
    (finding,) = found(run, "silent-data-corruption")
    assert (finding.sites, finding.onset_step) == (("2.weight",), 120)
    assert finding.causes[0].id == "hardware-corruption"


def test_overflows_in_every_fifth_step_are_no_calibration(tmp_path):
    task = Task()

    def overflow(step):
        if step >= 100 and step % 5 == 0:
            task.model[2].weight.grad[0, 0] = math.inf

    thrashing = task.train(tmp_path / "thrashing", 200, before_step=overflow, scaled=True)
    (finding,) = found(thrashing, "loss-scale-thrash")
    assert 100 <= finding.onset_step <= 115
    healthy = Task().train(tmp_path / "healthy", 200, scaled=True)
    assert found(healthy, "loss-scale-thrash") == []
    assert (
        healthy.table("run.loss").first()[0] < 3
    )  # without the scaler's factor, though it is older than the recorder


def test_wrong_labels_that_are_learned_by_heart_are_told_from_clean_ones(tmp_path):
    def run_of(share, folder):
        task = Task(1)
        inputs, labels = task.batch(512)
        wrong = torch.rand(512) < share
        labels = torch.where(wrong, torch.randint(6, (512,)), labels)

        def data(_step):
            rows = torch.randint(512, (32,))
            return inputs[rows], labels[rows]

        return task.train(folder, 900, data=data, evaluate=25, lr=3e-3)

    noisy = run_of(0.25, tmp_path / "noisy")
    (finding,) = found(noisy, "label-noise-memorization")
    assert finding.causes[0].id == "label-noise"
    assert found(run_of(0.0, tmp_path / "clean"), "label-noise-memorization") == []


def test_a_loss_of_one_class_is_always_zero_and_depends_on_nothing(tmp_path):
    model = nn.Linear(8, 1)
    optimizer = torch.optim.Adam(model.parameters())
    with stabdiag.watch(model, optimizer, log_dir=tmp_path, every=10) as recording:
        for _ in range(150):
            loss = F.cross_entropy(model(torch.randn(16, 8)), torch.zeros(16, dtype=torch.long))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    (finding,) = found(recording.run, "loss-plateau")
    assert finding.severity is Severity.warning
    assert finding.causes[0].id == "wrong-loss"
    assert found(recording.run, "dead-units") == []
