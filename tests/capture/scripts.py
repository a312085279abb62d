"""Small trainings of every kind, run as a script: `scripts.py KIND`. Prints each loss and a checksum of the
weights, the RNG and the gradients as hexadecimal floats, so that equal output means equal bits."""

from __future__ import annotations

import sys

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

STEPS = 52  # with every step recorded whole, those of the rare tier are among them


def mlp(inputs=8, outputs=4):
    return nn.Sequential(
        nn.Linear(inputs, 32),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(32, 32),
        nn.ReLU(),
        nn.Linear(32, outputs),
    )


def batch():
    return torch.randn(16, 8), torch.randn(16, 4)


def fit(model, optimizer, dtype=torch.float32):
    for _ in range(STEPS):
        x, y = (part.to(dtype) for part in batch())
        loss = F.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss
    yield from model.parameters()


def plain():
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    yield from fit(model, optimizer)


def accumulation():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(STEPS):
        for _ in range(3):
            x, y = batch()
            loss = F.mse_loss(model(x), y) / 3
            loss.backward()
            yield loss
        yield nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
    yield from model.parameters()


def evaluated():
    """Labels, some of them ignored, and evaluations between the steps."""
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    held_out = torch.randn(32, 8), torch.randint(4, (32,))
    for step in range(STEPS):
        x, y = torch.randn(16, 8), torch.randint(4, (16,))
        y[:2] = -100
        loss = F.cross_entropy(model(x), y, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss
        if step % 10 == 3:
            model.eval()
            with torch.no_grad():
                yield nn.CrossEntropyLoss()(model(held_out[0]), held_out[1])
                yield F.mse_loss(model(held_out[0]), torch.randn(32, 4), reduction="sum")
            model.train()
    yield from model.parameters()


def autocast():
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(STEPS):
        x, y = batch()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.mse_loss(model(x).float(), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss
    yield from model.parameters()


def scaler():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scale = torch.amp.GradScaler("cpu", growth_interval=3)
    for step in range(STEPS):
        x, y = batch()
        loss = F.mse_loss(model(x), y) * (float("inf") if step == 6 else 1.0)
        optimizer.zero_grad()
        scale.scale(loss).backward()
        scale.step(optimizer)
        scale.update()
        yield loss
        yield torch.tensor(scale.get_scale())
    yield from model.parameters()


def closure():
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1)
    x, y = batch()

    def evaluate():
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        return loss

    for _ in range(STEPS):
        yield optimizer.step(evaluate)
    yield from model.parameters()


def checkpointed(reentrant):
    first, second = mlp(8, 8), mlp()
    model = nn.ModuleList([nn.Linear(8, 8), first, second])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(STEPS):
        x, y = batch()
        hidden = checkpoint(first, model[0](x), use_reentrant=reentrant)
        loss = F.mse_loss(checkpoint(second, hidden, use_reentrant=reentrant), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss
    yield from model.parameters()


def gan():
    maker, judge = mlp(4, 8), mlp(8, 1)
    of_maker = torch.optim.Adam(maker.parameters(), 1e-3)
    of_judge = torch.optim.Adam(judge.parameters(), 1e-3)
    for _ in range(STEPS):
        made = maker(torch.randn(16, 4))
        loss = F.softplus(-judge(torch.randn(16, 8))).mean() + F.softplus(judge(made.detach())).mean()
        of_judge.zero_grad()
        loss.backward()
        of_judge.step()
        yield loss
        loss = F.softplus(-judge(made)).mean()
        of_maker.zero_grad()
        loss.backward()
        of_maker.step()
        yield loss
    yield from [*maker.parameters(), *judge.parameters()]


def by_hand():
    model = mlp()
    for _ in range(STEPS):
        x, y = batch()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        for parameter in model.parameters():
            parameter.data.add_(parameter.grad, alpha=-0.1)
            parameter.grad.zero_()
        yield loss
    yield from model.parameters()


def in_backward():
    model = mlp()
    of = {parameter: torch.optim.Adam([parameter], 1e-3) for parameter in model.parameters()}

    def step(parameter):
        of[parameter].step()
        of[parameter].zero_grad()

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(step)
    for _ in range(STEPS):
        x, y = batch()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        yield loss
    yield from model.parameters()


def penalty():
    model = mlp(8, 1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(STEPS):
        x = torch.randn(16, 8, requires_grad=True)
        score = model(x)
        (slope,) = torch.autograd.grad(outputs=score.sum(), inputs=x, create_graph=True)
        loss = score.mean() + (slope.norm(dim=1) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss
    yield from model.parameters()


def compiled():
    model = mlp()
    fast = torch.compile(model, backend="aot_eager", fullgraph=True)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(STEPS):
        x, y = batch()
        loss = F.mse_loss(fast(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss
    from torch._dynamo.utils import counters

    yield torch.tensor(float(counters["stats"]["unique_graphs"]))
    yield torch.tensor(float(sum(counters["graph_break"].values())))
    yield from model.parameters()


def of_type(dtype):
    model = mlp().to(dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    yield from fit(model, optimizer, dtype)


class Rounded(nn.Module):
    """Returns what float8 keeps of its input, and has a weight of that type."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(8).to(torch.float8_e5m2))

    def forward(self, x):
        return (x * self.scale.to(x.dtype)).to(torch.float8_e4m3fn)


class Straight(nn.Module):
    """The gradient passes by the rounding."""

    def __init__(self):
        super().__init__()
        self.rounded, self.inner = Rounded(), mlp()

    def forward(self, x):
        return self.inner(x + (self.rounded(x.detach()).to(x.dtype) - x.detach()))


def float8():
    model = Straight()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    yield from fit(model, optimizer)


def averaged():
    model = mlp()
    average = torch.optim.swa_utils.AveragedModel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(STEPS):
        x, y = batch()
        loss = F.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update_parameters(model)
        with torch.no_grad():
            yield average(x).mean()
        yield loss
    yield from [*model.parameters(), *average.parameters()]


def unrolled():
    cell, head = nn.GRUCell(8, 16), nn.Linear(16, 4)
    model = nn.ModuleDict({"cell": cell, "head": head})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(STEPS):
        x, y = batch()
        hidden = torch.zeros(16, 16)
        for _ in range(10):
            hidden = cell(x, hidden)
        loss = F.mse_loss(head(hidden), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss
    yield from model.parameters()


class Mixture(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(8, 4)
        self.experts = nn.ModuleList(mlp() for _ in range(4))

    def forward(self, x):
        weights, chosen = self.gate(x).softmax(-1).topk(2)
        out = x.new_zeros(len(x), 4)
        for number, expert in enumerate(self.experts):
            rows, place = torch.where(chosen == number)
            out = out.index_add(0, rows, expert(x[rows]) * weights[rows, place, None])
        return out


def mixture():
    model = Mixture()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    yield from fit(model, optimizer)


def together():
    model = mlp()
    matrices = [p for p in model.parameters() if p.dim() == 2]
    optimizers = [
        torch.optim.SGD(matrices, lr=0.05, momentum=0.9),
        torch.optim.AdamW([p for p in model.parameters() if p.dim() < 2], lr=1e-2),
    ]
    for _ in range(STEPS):
        x, y = batch()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        yield loss
    yield from model.parameters()


def deep():
    model = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(150)), nn.Linear(8, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    yield from fit(model, optimizer)


def modes():
    """Batch normalization, dropout and a tanh, with evaluations in either mode between the steps."""
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(STEPS):
        if step % 7 == 3:
            model.train(step % 2 == 0)
            with torch.no_grad():
                yield model(batch()[0])
            model.train()
        x, y = batch()
        loss = F.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss
    yield from [*model.parameters(), *model.buffers()]


def variational():
    encoder, decoder = mlp(8, 6), mlp(3, 8)
    model = nn.ModuleList([encoder, decoder])
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(STEPS):
        x, _ = batch()
        mean, log = encoder(x).chunk(2, -1)
        made = decoder(mean + (0.5 * log).exp() * torch.randn_like(mean))
        loss = (made - x).square().sum(1).mean() - 0.5 * (1 + log - mean**2 - log.exp()).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss
    yield from model.parameters()


def transformer():
    model = nn.Sequential(
        nn.Embedding(32, 16), nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), nn.Linear(16, 32)
    )
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for _ in range(STEPS):
        tokens = torch.randint(32, (4, 13))
        loss = F.cross_entropy(model(tokens[:, :-1]).transpose(1, 2), tokens[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss
    yield from model.parameters()


KINDS = {
    "plain": plain,
    "accumulation": accumulation,
    "autocast": autocast,
    "evaluated": evaluated,
    "scaler": scaler,
    "closure": closure,
    "checkpoint": lambda: checkpointed(False),
    "reentrant-checkpoint": lambda: checkpointed(True),
    "gan": gan,
    "by-hand": by_hand,
    "in-backward": in_backward,
    "penalty": penalty,
    "compiled": compiled,
    "bfloat16": lambda: of_type(torch.bfloat16),
    "float64": lambda: of_type(torch.float64),
    "float8": float8,
    "averaged": averaged,
    "unrolled": unrolled,
    "mixture": mixture,
    "together": together,
    "deep": deep,
    "modes": modes,
    "variational": variational,
    "transformer": transformer,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for value in KINDS[sys.argv[1]]():
        print(value.detach().double().sum().item().hex())
    print(torch.rand(1).item().hex())
