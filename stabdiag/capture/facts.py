"""What is known once: the process, the model, the optimizer, what computes the loss."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

import numpy
import torch
from torch import nn
from torch.nn.parameter import is_lazy

import stabdiag
from stabdiag.stats.optimizer import known_optimizer

HYPERPARAMETERS = (
    *("lr", "betas", "eps", "weight_decay", "momentum", "nesterov", "amsgrad", "max_iter"),
    *("alpha", "centered", "rho", "momentum_decay", "lr_decay", "beta2_decay", "d"),
)
LOSSES = {
    "NllLoss": "cross-entropy",
    "NllLoss2D": "cross-entropy",
    "MseLoss": "mean-squared-error",
    "BinaryCrossEntropy": "binary-cross-entropy",
    "BinaryCrossEntropyWithLogits": "binary-cross-entropy",
    "L1Loss": "absolute-error",
    "SmoothL1Loss": "smooth-absolute-error",
    "HuberLoss": "huber",
    "KlDiv": "kl-divergence",
}
NEAR = 12
OTHER = {"Log", "Log1p", "Exp", "Sqrt", "Sub", "Rsub"}
"""What makes another quantity of a loss: its floor and its unit are no longer the same."""


def process(world_size: int) -> dict[str, Any]:
    """Data of the `process` event."""
    accelerator = torch.accelerator.current_accelerator() if hasattr(torch, "accelerator") else None
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {
        "pid": os.getpid(),
        "argv": list(sys.argv),
        "threads": torch.get_num_threads(),
        "world_size": world_size,
        "device": name or (str(accelerator) if accelerator else f"cpu ({platform.machine()})"),
        "versions": {
            "stabdiag": stabdiag.__version__,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": numpy.__version__,
        },
    }


def model(module: nn.Module, name: str) -> dict[str, Any]:
    """Data of the `model` event."""
    parameters = [p for p in module.parameters() if not is_lazy(p)]
    return {
        "name": name,
        "class": type(module).__name__,
        "modules": sum(1 for _ in module.modules()),
        "parameters": sum(p.numel() for p in parameters),
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
    }


def optimizer(instance: torch.optim.Optimizer, index: int) -> dict[str, Any]:
    """Data of the `optimizer` event; hyperparameters that are tensors become numbers. `family` is the class
    of torch whose step it takes, where its state is known."""
    groups = []
    for group in instance.param_groups:
        settings = {key: _plain(group[key]) for key in HYPERPARAMETERS if key in group}
        groups.append({**settings, "parameters": len(group["params"])})
    known = known_optimizer(instance)
    family = {"family": known.id} if known else {}
    return {"index": index, "name": type(instance).__name__, **family, "groups": groups}


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.item()
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def loss(root: torch.Tensor) -> dict[str, Any]:
    """Data of the `loss` event, from the nodes nearest to the root of the graph.

    `logits` says whether a binary cross-entropy takes the sigmoid itself. `classes` is the width of the
    log-softmax below a negative log-likelihood, read off the node's metadata: saved tensors are not touched,
    whose unpacking may run hooks of the script.
    """
    front: list[Any] = [root.grad_fn]
    for _ in range(NEAR):
        if not front:
            break
        node = front.pop(0)
        if node is None:
            continue
        name = type(node).__name__.removesuffix("Backward0").removesuffix("Backward")
        if name in OTHER:
            continue
        below = [child for child, _ in node.next_functions]
        if name in LOSSES:
            found: dict[str, Any] = {"function": LOSSES[name]}
            if found["function"] == "binary-cross-entropy":
                found["logits"] = name == "BinaryCrossEntropyWithLogits"
            if found["function"] == "cross-entropy" and below and below[0] is not None:
                shape = getattr(below[0], "_input_metadata", [None])[0]
                if shape is not None and len(shape.shape) > 1:
                    found["classes"] = int(shape.shape[1])
            return found
        front.extend(below)
    return {"function": "unknown", "node": type(root.grad_fn).__name__}
