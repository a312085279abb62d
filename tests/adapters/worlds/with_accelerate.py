"""A loop of one's own with Accelerate; the ways are those of with_transformers.py."""

import sys

import torch
from accelerate import Accelerator
from torch.nn import functional as F

from stabdiag.adapters.accelerate import StabdiagTracker

STEPS = 8


def train(trackers, fails_at=None, early=True, lr=1e-2, precision="bf16", ends=True):
    """The sum of the trained weights, to the bit. `early`: the trackers begin before the model is made."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    accelerator = Accelerator(
        log_with=trackers, gradient_accumulation_steps=2, mixed_precision=precision, cpu=True
    )
    if early:
        accelerator.init_trackers("small", config={"lr": lr})
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr)
    x = torch.randn(256, 8)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x[:, :3].argmax(1)), 16)
    model, optimizer, data = accelerator.prepare(model, optimizer, data)
    if not early:
        accelerator.init_trackers("small")
    for number, (inputs, labels) in zip(range(2 * STEPS), data, strict=False):
        if number == fails_at:
            raise ValueError("a damaged sample")
        with accelerator.accumulate(model):
            loss = F.cross_entropy(model(inputs), labels)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
        accelerator.log({"loss": loss.item()}, step=number)
        if number == 7:
            model.eval()
            with torch.no_grad():
                F.cross_entropy(model(inputs), labels)
            model.train()
    if ends:
        for tracker in accelerator.trackers:  # end_training, but for the world, which is needed once more
            tracker.finish()
    return sum(p.detach().double().sum().item() for p in model.parameters()).hex()


if __name__ == "__main__":
    way = sys.argv[1]
    if way == "both":
        alone = train([])
        recorded = train([StabdiagTracker(every=2)])
        print("the same" if recorded == alone else f"{recorded} is not {alone}", flush=True)
    else:
        train([StabdiagTracker(every=2)], fails_at=5 if way == "fails" else None, ends=way != "unended")
