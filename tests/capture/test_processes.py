"""Training in several processes, and in the hands of the Hugging Face Trainer and of Lightning."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import stabdiag
from stabdiag.store.reader import load

DISTRIBUTED = """
import gc, torch
from torch import nn, distributed
torch.set_num_threads(1)
distributed.init_process_group("gloo")
torch.manual_seed(distributed.get_rank())
model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1)))
optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
for _ in range(12):
    x = torch.randn(16, 8)
    loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
if distributed.get_rank() == 0:
    print(sum(p.double().sum().item() for p in model.parameters()).hex())
# The parameters hold the reducer, and that the threads of gloo: alive at the end, they abort the process.
del loss, model, optimizer, x
gc.collect()
distributed.barrier()
distributed.destroy_process_group()
"""
SPAWNED = """
import torch
def work(number):
    torch.set_num_threads(1)
    model = torch.nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(6 + number):
        optimizer.zero_grad()
        model(torch.randn(16, 8)).square().mean().backward()
        optimizer.step()
if __name__ == "__main__":
    torch.multiprocessing.spawn(work, nprocs=2)
"""
LOADED = """
import torch
from torch.utils.data import DataLoader, TensorDataset
torch.set_num_threads(1)
torch.manual_seed(0)
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
data = DataLoader(TensorDataset(torch.randn(64, 8)), 16, num_workers=2, multiprocessing_context="fork")
for _ in range(2):
    for (x,) in data:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
"""
FORKED = """
import os, sys, torch
torch.set_num_threads(1)
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
def train(steps):
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(16, 8)).square().mean().backward()
        optimizer.step()
train(3)
child = os.fork()
train(2 if child else 4)
if child:
    os.waitpid(child, 0)
"""
HUGGING_FACE = """
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
torch.set_num_threads(1)
torch.manual_seed(0)
model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=1, n_head=2))
class Tokens(torch.utils.data.Dataset):
    def __len__(self):
        return 64
    def __getitem__(self, index):
        tokens = torch.randint(0, 50, (16,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": tokens, "labels": tokens}
arguments = TrainingArguments(
    "out", max_steps=8, per_device_train_batch_size=4, gradient_accumulation_steps=2, report_to=[],
    save_strategy="no", use_cpu=True, learning_rate=1e-3, disable_tqdm=True,
)
Trainer(model=model, args=arguments, train_dataset=Tokens()).train()
print(sum(p.double().sum().item() for p in model.parameters()).hex())
"""
LIGHTNING = """
import lightning, torch
from torch.nn import functional as F
torch.set_num_threads(1)
lightning.seed_everything(0, verbose=False)
class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    def training_step(self, batch, index):
        return F.cross_entropy(self.net(batch[0]), batch[1])
    def validation_step(self, batch, index):
        F.cross_entropy(self.net(batch[0]), batch[1])
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-2)
x = torch.randn(128, 8)
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x[:, :3].argmax(1)), 16)
trainer = lightning.Trainer(
    max_epochs=2, accelerator="cpu", gradient_clip_val=1.0, logger=False, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False, accumulate_grad_batches=2,
)
model = Model()
trainer.fit(model, data, data)
print(sum(p.double().sum().item() for p in model.parameters()).hex())
"""
RUN = (sys.executable, "-m", "stabdiag", "run", "-q", "--no-report")


def run(folder: Path, *command: str) -> str:
    """What `command` prints; it may not take more than 12 GiB of addresses."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30)),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def recorded(folder: Path, rank: int | None = None):
    run = load(stabdiag.load(folder / "stabdiag-runs").path, rank)
    assert list(run.events_of("recorder-error")) == []
    return run


@pytest.mark.slow
def test_each_rank_of_torchrun_is_recorded_and_trains_the_same(tmp_path):
    (tmp_path / "train.py").write_text(DISTRIBUTED)
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "train.py")
    alone = run(tmp_path, sys.executable, *launch)
    assert run(tmp_path, *RUN, *launch) == alone
    ranks = [recorded(tmp_path, rank) for rank in (0, 1)]
    assert [rank.steps for rank in ranks] == [12, 12]
    assert ranks[0].info.world_size == ranks[0].info.processes == 2
    losses, norms = (
        [rank.table(series).first() for rank in ranks] for series in ("run.loss", "run.grad_norm")
    )
    assert (losses[0] != losses[1]).any()
    np.testing.assert_array_equal(norms[0], norms[1])  # the gradients were averaged
    assert {site.name for site in ranks[0].sites("grad")} == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert (ranks[0].table("run.samples").first() == 16).all()


@pytest.mark.slow
def test_spawned_workers_are_recorded_each_and_their_parent_is_not(tmp_path):
    (tmp_path / "train.py").write_text(SPAWNED)
    run(tmp_path, *RUN, "train.py")
    assert recorded(tmp_path).info.processes == 2
    assert {recorded(tmp_path, number).steps for number in (0, 1)} == {6, 7}


@pytest.mark.slow
def test_a_forked_process_that_trains_is_recorded_apart(tmp_path):
    (tmp_path / "train.py").write_text(FORKED)
    run(tmp_path, *RUN, "train.py")
    parent, child = (recorded(tmp_path, number) for number in (0, 1))
    assert parent.table("run.loss").steps.tolist() == list(range(5))
    assert child.table("run.loss").steps.tolist() == list(range(4))
    assert np.isfinite(child.table("run.loss").first()).all()
    assert np.isfinite(child.table("grad.norm").values).all()


@pytest.mark.slow
def test_forked_data_workers_write_nothing(tmp_path):
    (tmp_path / "train.py").write_text(LOADED)
    run(tmp_path, *RUN, "train.py")
    found = recorded(tmp_path)
    assert found.info.processes == 1
    assert found.table("run.loss").steps.tolist() == list(range(8))
    assert len(list(found.events_of("process"))) == len(list(found.events_of("end"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "steps"), [(HUGGING_FACE, 8), (LIGHTNING, 8)], ids=["transformers", "lightning"]
)
def test_a_trainer_of_others_trains_the_same_and_is_recorded(tmp_path, script, steps):
    pytest.importorskip("transformers" if script is HUGGING_FACE else "lightning")
    (tmp_path / "train.py").write_text(script)
    alone = run(tmp_path, sys.executable, "train.py")
    assert run(tmp_path, *RUN, "train.py").splitlines()[-1] == alone.splitlines()[-1]
    found = recorded(tmp_path)
    assert found.steps == steps
    assert np.isfinite(found.table("run.loss").first()).all()
    assert (found.table("run.micro_batches").first() == 2).all()
    assert np.isfinite(found.table("output.rms").values).any()
    assert np.isfinite(found.table("grad.norm").values).all()
    assert np.isfinite(found.table("batch.fingerprint").values).any()
    assert found.fact("loss", "function") == "cross-entropy"
