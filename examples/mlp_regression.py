"""A plain loop: an MLP learns a smooth function of eight variables, with SGD and momentum."""

import argparse
import math

import torch
from torch import nn

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--steps", type=int, default=2000)
arguments = parser.parse_args()
torch.manual_seed(arguments.seed)

directions = torch.randn(8, 4) / math.sqrt(8)


def sample(count):
    x = torch.randn(count, 8)
    y = torch.sin(2 * x @ directions).sum(dim=1, keepdim=True)
    return x, y + 0.1 * torch.randn_like(y)


model = nn.Sequential(
    nn.Linear(8, 256), nn.Tanh(),
    nn.Linear(256, 256), nn.Tanh(),
    nn.Linear(256, 1),
)  # fmt: skip
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, arguments.steps)

for step in range(arguments.steps):
    x, y = sample(256)
    loss = nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    if step % 100 == 0 or step == arguments.steps - 1:
        print(f"step {step}: loss {loss.item():.4f}")

with torch.no_grad():
    x, y = sample(10_000)
    print(f"test loss {nn.functional.mse_loss(model(x), y):.4f}, of which 0.01 is noise")
