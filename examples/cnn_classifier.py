"""Mixed precision, gradient accumulation and clipping: a small CNN tells the direction of noisy stripes."""

import argparse
import math

import torch
from torch import nn

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--steps", type=int, default=300)
arguments = parser.parse_args()
torch.manual_seed(arguments.seed)

CLASSES, SIZE, BATCH, ACCUMULATE = 8, 24, 32, 2
row, column = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")


def sample(count):
    """Stripes of a random phase and width; their direction, in steps of 22.5 degrees, is the class."""
    labels = torch.randint(CLASSES, (count,))
    angle = (labels * math.pi / CLASSES)[:, None, None]
    frequency = 0.6 + 0.6 * torch.rand(count, 1, 1)
    phase = 2 * math.pi * torch.rand(count, 1, 1)
    stripes = torch.sin(frequency * (row * torch.sin(angle) + column * torch.cos(angle)) + phase)
    return (stripes + 1.5 * torch.randn_like(stripes))[:, None], labels


def stage(inputs, outputs):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )


model = nn.Sequential(
    stage(1, 16), stage(16, 32), stage(32, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES)
)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=arguments.steps)

for step in range(arguments.steps):
    optimizer.zero_grad()
    for _ in range(ACCUMULATE):
        images, labels = sample(BATCH)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = nn.functional.cross_entropy(model(images), labels) / ACCUMULATE
        loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    if step % 20 == 0 or step == arguments.steps - 1:
        print(f"step {step}: loss {loss.item() * ACCUMULATE:.4f}")

model.eval()
with torch.no_grad():
    images, labels = sample(1000)
    print(f"test accuracy {(model(images).argmax(dim=1) == labels).float().mean():.3f}")
