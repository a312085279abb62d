"""A recurrent model: an LSTM with Adam learns to continue a noisy mixture of two sine waves."""

import argparse
import math

import torch
from torch import nn

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--steps", type=int, default=300)
arguments = parser.parse_args()
torch.manual_seed(arguments.seed)

LENGTH = 64


def sample(count):
    """Waves [count, LENGTH + 1, 1]; each has its own periods and phases, to be read off its beginning."""
    time = torch.arange(LENGTH + 1)
    period = 8 + 24 * torch.rand(count, 2, 1)
    phase = 2 * math.pi * torch.rand(count, 2, 1)
    waves = torch.sin(2 * math.pi * time / period + phase).mean(dim=1)
    return (waves + 0.05 * torch.randn_like(waves))[:, :, None]


class Continuation(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(1, 64, num_layers=2, batch_first=True)
        self.head = nn.Linear(64, 1)

    def forward(self, x):
        states, _ = self.lstm(x)
        return self.head(states)


model = Continuation()
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, arguments.steps, eta_min=3e-4)

for step in range(arguments.steps):
    waves = sample(32)
    loss = nn.functional.mse_loss(model(waves[:, :-1]), waves[:, 1:])
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    if step % 20 == 0 or step == arguments.steps - 1:
        print(f"step {step}: loss {loss.item():.4f}")
