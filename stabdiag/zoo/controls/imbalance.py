from __future__ import annotations

import torch

from stabdiag.zoo import spots
from stabdiag.zoo.control import control
from stabdiag.zoo.training import Batch, Training


@control("rare-classes", needs=("classes",), without=("edges",))
def prepare(training: Training) -> None:
    """Nine of ten samples are of one class: the loss begins low."""
    sound = training.parts.batches

    def change(index: int, batch: Batch) -> Batch:
        rich = [sound(2 * index + i) for i in (100_000, 100_001)]
        inputs, classes = (torch.cat([pair[part] for pair in rich]) for part in (0, 1))
        order = torch.argsort((classes != 0).float(), stable=True)
        count = len(batch[0])
        common = min(int((classes == 0).sum()), count * 9 // 10)
        kept = torch.cat([order[:common], order[len(order) - (count - common) :]])
        return inputs[kept], classes[kept]

    spots.at_batches(training, lambda index: index >= 0, change)
