"""Two models, two optimizers: a small GAN learns a ring of points in the plane."""

import argparse
import math

import torch
from torch import nn

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--steps", type=int, default=1000)
arguments = parser.parse_args()
torch.manual_seed(arguments.seed)

NOISE, BATCH = 8, 128


def sample(count):
    angle = 2 * math.pi * torch.rand(count)
    return torch.stack([angle.cos(), angle.sin()], dim=1) + 0.1 * torch.randn(count, 2)


def network(inputs, outputs):
    return nn.Sequential(
        nn.Linear(inputs, 128), nn.LeakyReLU(0.2),
        nn.Linear(128, 128), nn.LeakyReLU(0.2),
        nn.Linear(128, outputs),
    )  # fmt: skip


generator, critic = network(NOISE, 2), network(2, 1)
# The generator learns slower than the critic, so that it has something to learn from (Heusel et al. 2017).
generator_optimizer = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
critic_optimizer = torch.optim.Adam(critic.parameters(), lr=4e-4, betas=(0.5, 0.999))
criterion = nn.BCEWithLogitsLoss()
real, fake = torch.ones(BATCH, 1), torch.zeros(BATCH, 1)

for step in range(arguments.steps):
    made = generator(torch.randn(BATCH, NOISE))
    critic_loss = criterion(critic(sample(BATCH)), real) + criterion(critic(made.detach()), fake)
    critic_optimizer.zero_grad()
    critic_loss.backward()
    critic_optimizer.step()

    generator_loss = criterion(critic(made), real)
    generator_optimizer.zero_grad()
    generator_loss.backward()
    generator_optimizer.step()
    if step % 100 == 0 or step == arguments.steps - 1:
        print(f"step {step}: critic {critic_loss.item():.4f}, generator {generator_loss.item():.4f}")

with torch.no_grad():
    radius = generator(torch.randn(1000, NOISE)).norm(dim=1)
    print(f"radius of the made points {radius.mean():.3f} +- {radius.std():.3f}, of the real ones 1.0 +- 0.1")
