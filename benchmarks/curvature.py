"""The largest eigenvalue of a Hessian, its accuracy and its price, beside PyHessian and curvlinops.

    python benchmarks/curvature.py [STEPS]

A small GPT trains for STEPS steps (default 250). Every 50 steps each tool looks at the same weights and the
same batch; the exact spectrum comes from the full Hessian in float64. A gradient is a forward and a backward
pass of that batch. Peers need attention with a second derivative: the model's is told to be the plain one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from statistics import median
from time import perf_counter

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from curvlinops import HessianLinearOperator, hutchinson_trace
from pyhessian import hessian
from scipy.sparse.linalg import eigsh
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from stabdiag.capture.curvature import Curvature
from stabdiag.capture.flat_loss import FlatLoss
from stabdiag.reference.model import GPT, Config

EVERY = 50
CLASSES, CONTEXT, BATCH = 16, 8, 192


class Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model(tokens).reshape(-1, CLASSES)


def batches(chain: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens of a Markov chain, and the ones that follow, [BATCH, CONTEXT] and [BATCH · CONTEXT]."""
    tokens = torch.randint(CLASSES, (BATCH, 1))
    for _ in range(CONTEXT):
        tokens = torch.cat([tokens, torch.multinomial(chain[tokens[:, -1]], 1)], 1)
    return tokens[:, :-1].contiguous(), tokens[:, 1:].reshape(-1)


def exact(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Eigenvalues of the full Hessian [n], ascending."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    with sdpa_kernel(SDPBackend.MATH):
        model.double()
        gradients = torch.autograd.grad(F.cross_entropy(model(x), y), parameters, create_graph=True)
        flat = torch.cat([g.reshape(-1) for g in gradients])
        rows = [
            torch.cat([r.reshape(-1) for r in torch.autograd.grad(one, parameters, retain_graph=True)])
            for one in flat
        ]
        model.float()
    matrix = torch.stack(rows)
    return torch.linalg.eigvalsh((matrix + matrix.T) / 2)


class Stabdiag:
    """`take` measures in turns; each turn is a probe of its own."""

    def __init__(self) -> None:
        self.curvature = Curvature()
        self.evaluations: list[int] = []
        """Gradients that each look took, by number."""

    def __call__(self, model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
        self.evaluations.append(0)

        def compute() -> torch.Tensor:
            self.evaluations[-1] += 1
            return F.cross_entropy(model(x), y)

        loss = FlatLoss(model, list(model.parameters()), compute)
        turn, measured = self.curvature.take(loss, None)
        found = self.curvature.read(turn, {key: value.numpy() for key, value in measured.items()})
        return found.get("lambda_max", float("nan"))


def pyhessian(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    with sdpa_kernel(SDPBackend.MATH):
        tool = hessian(model, F.cross_entropy, data=(x, y), cuda=False)
        value = tool.eigenvalues(top_n=1)[0][0]
    model.train()
    model.zero_grad()
    return float(value)


def operator(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> HessianLinearOperator:
    parameters = [p for p in model.parameters() if p.requires_grad]
    return HessianLinearOperator(
        model, nn.CrossEntropyLoss(), parameters, [(x, y)], check_deterministic=False
    )


def curvlinops(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    with sdpa_kernel(SDPBackend.MATH):
        start = np.random.default_rng(0).standard_normal(sum(p.numel() for p in model.parameters()))
        matrix = operator(model, x, y).to_scipy()
        return float(eigsh(matrix, k=1, which="LA", tol=0.01, v0=start, return_eigenvectors=False)[0])


def trace(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    with sdpa_kernel(SDPBackend.MATH):
        return float(hutchinson_trace(operator(model, x, y), num_matvecs=30))


def gradient_seconds(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    times = []
    for _ in range(9):
        start = perf_counter()
        torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
        times.append(perf_counter() - start)
    return median(times)


def main(steps: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Logits(GPT(Config(CLASSES, CONTEXT, 2, 2, 8)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    chain = torch.softmax(2 * torch.randn(CLASSES, CLASSES), -1)
    ours = Stabdiag()
    tools: dict[str, Callable[[nn.Module, torch.Tensor, torch.Tensor], float]] = {
        "stabdiag": ours,
        "PyHessian, power iteration": pyhessian,
        "curvlinops, eigsh": curvlinops,
        "curvlinops, trace": trace,
    }
    errors: dict[str, list[float]] = {name: [] for name in tools}
    prices: dict[str, list[float]] = {name: [] for name in tools}
    for step in range(1, steps + 1):
        x, y = batches(chain)
        if step % EVERY == 0:
            values = exact(model, x, y)
            bare = gradient_seconds(model, x, y)
            for name, tool in tools.items():
                start = perf_counter()
                found = tool(model, x, y)
                price = (perf_counter() - start) / bare
                truth = float(values.sum() if name.endswith("trace") else values[-1])
                if np.isfinite(found):
                    errors[name].append(abs(found / truth - 1))
                    prices[name].append(price)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(values):,} eigenvalues")
    print(f"stabdiag took these numbers of gradients: {ours.evaluations}")
    print("| tool | looks | error: median | largest | gradients: first | later |")
    print("|---|---|---|---|---|---|")
    for name in tools:
        later = prices[name][1:] or prices[name]
        print(
            f"| {name} | {len(errors[name])} | {median(errors[name]):.1%} | {max(errors[name]):.1%}"
            f" | {prices[name][0]:.1f} | {median(later):.1f} |"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 250)
