"""A closure: LBFGS fits a small network to a noisy curve, all points at once."""

import argparse

import torch
from torch import nn

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--steps", type=int, default=30)
arguments = parser.parse_args()
torch.manual_seed(arguments.seed)

x = torch.linspace(-2, 2, 2000)[:, None]
truth = torch.sin(4 * x) * torch.exp(-(x**2) / 2) + 0.3 * x
y = truth + 0.05 * torch.randn_like(x)

model = nn.Sequential(nn.Linear(1, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 1))
optimizer = torch.optim.LBFGS(model.parameters(), max_iter=5, line_search_fn="strong_wolfe")


def closure():
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(x), y)
    loss.backward()
    return loss


for step in range(arguments.steps):
    loss = optimizer.step(closure)
    if step % 5 == 0 or step == arguments.steps - 1:
        print(f"step {step}: loss {loss.item():.5f}")

with torch.no_grad():
    print(f"distance from the curve without its noise {nn.functional.mse_loss(model(x), truth).sqrt():.4f}")
