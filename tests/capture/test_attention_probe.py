from __future__ import annotations

import io
import math
import traceback

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

CAUSAL = torch.ones(12, 12, dtype=torch.bool).tril()
INF = float("inf")


class Attention(nn.Module):
    """Self-attention of 4 heads (2 groups of keys in the way `grouped`), written in one of many ways."""

    def __init__(self, way: str = "causal", width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.way, self.heads = way, heads
        self.groups = heads // 2 if way == "grouped" else heads
        self.width = width // heads
        self.qkv = nn.Linear(width, (heads + 2 * self.groups) * self.width)
        self.out = nn.Linear(width, width)

    def split(self, x):
        sizes = [n * self.width for n in (self.heads, self.groups, self.groups)]
        return (part.unflatten(-1, (-1, self.width)).transpose(1, 2) for part in self.qkv(x).split(sizes, -1))

    def forward(self, x):
        q, k, v = self.split(x)
        y = WAYS[self.way](q, k, v)
        return self.out(y.transpose(1, 2).flatten(2))


def by_hand(q, k, v, dropout=0.0, dtype=None):
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    weights = scores.masked_fill(~CAUSAL, -INF).softmax(-1, dtype=dtype).to(v.dtype)
    return F.dropout(weights, dropout) @ v


def added_mask(q, k, v):
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.mT)
    return torch.softmax(scores + torch.zeros(12, 12).masked_fill(~CAUSAL, torch.finfo().min), -1) @ v


def einsum(q, k, v):
    scores = torch.einsum("bhid,bhjd->bhij", q, k) * q.shape[-1] ** -0.5
    return torch.einsum("bhij,bhjd->bhid", scores.masked_fill(~CAUSAL, -1e9).softmax(dim=3), v)


def baddbmm(q, k, v):
    (b, h), bias = q.shape[:2], torch.zeros(12, 12).masked_fill(~CAUSAL, -INF)
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    scores = torch.baddbmm(bias, q, k.mT, alpha=q.shape[-1] ** -0.5)
    return (scores.softmax(-1) @ v).unflatten(0, (b, h))


def math_kernel(q, k, v):
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


WAYS = {
    "causal": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    "mask": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=CAUSAL),
    "dropout": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=CAUSAL, dropout_p=0.3),
    "grouped": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True),
    "math": math_kernel,
    "by hand": by_hand,
    "by hand, dropout": lambda q, k, v: by_hand(q, k, v, 0.3),
    "added mask": added_mask,
    "einsum": einsum,
    "baddbmm": baddbmm,
}


class Model(nn.Module):
    def __init__(self, *ways: str) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Attention(way) for way in ways)
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def adam(model):
    return torch.optim.AdamW(model.parameters(), lr=1e-2)


def batches(count=3, items=4):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(items, 12, 32, generator=generator) for _ in range(count)]


def materialised(block: Attention, x: torch.Tensor):
    """Entropy, its ratio to the most possible, and the largest logit, per head, in float64."""
    q, k, _ = (t.double() for t in block.split(x))
    k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    logits = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~CAUSAL, -INF)
    entropy = torch.special.entr(logits.softmax(-1)).sum(-1)[:, :, 1:]
    ratio = entropy / torch.arange(2.0, 13).log()
    return entropy.mean((0, 2)), ratio.mean((0, 2)), logits.amax((0, 2, 3))


@pytest.mark.parametrize("way", WAYS)
def test_whatever_way_attention_is_written_its_numbers_are_those_of_the_materialised_softmax(
    watch, at, healthy, way
):
    model, (x,) = Model(way), batches(1, items=1)
    optimizer = adam(model)
    with torch.no_grad():
        model.blocks[0].qkv.weight *= 4
        entropy, ratio, logit = materialised(model.blocks[0], x)
    with watch(model, optimizer) as recording:
        model(x).square().mean().backward()
        optimizer.step()
    run = recording.run
    healthy(run)
    names = ["blocks.0", *(f"blocks.0[h{head}]" for head in range(4))]
    assert [site.name for site in run.sites("attention")] == names
    assert run.sites("attention")[0].shape == (1, 4, 12, 12)
    assert run.sites("attention")[0].module_type == "Attention"
    expected = {"entropy": entropy, "entropy_ratio": ratio, "max_logit": logit}
    for statistic, values in expected.items():
        got = at(run, f"attention.{statistic}")
        tolerance = {"rel": 0.025} if statistic == "max_logit" else {"abs": 1e-3}
        layer = values.max() if statistic == "max_logit" else values.mean()
        assert got["blocks.0"] == pytest.approx(layer.item(), **tolerance), statistic
        for head, value in enumerate(values.tolist()):
            assert got[f"blocks.0[h{head}]"] == pytest.approx(value, **tolerance), statistic
    assert set(at(run, "attention.exact").values()) == {1}
    assert set(at(run, "attention.nonfinite").values()) == {0}
    assert at(run, "attention.max_logit_upper")["blocks.0"] >= logit.max() * (1 - 1e-6)


class Encoder(nn.Module):
    """torch's own layers: fused attention with a float mask, and attention that returns its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
        self.cross = nn.MultiheadAttention(32, 4, dropout=0.1)

    def forward(self, x):
        padding = torch.arange(12) >= torch.tensor([12, 9, 5, 1])[:, None]
        memory = self.layer(x, src_mask=~CAUSAL, src_key_padding_mask=padding)
        y = memory.transpose(0, 1)
        return self.cross(y[:7], y, y)[0]


def trained(make, watch=None, forward=None):
    """Everything that training may be seen to have done, and its recording."""
    torch.manual_seed(0)
    model = make()
    optimizer = adam(model)
    recording = watch(model, optimizer) if watch else None
    losses = []
    for x in batches():
        optimizer.zero_grad()
        loss = (forward or (lambda m, x: m(x)))(model, x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    if recording is not None:
        recording.close()
    return [*losses, *(p.detach() for p in model.parameters()), torch.get_rng_state()], recording


def assert_unchanged(make, watch, healthy, forward=None):
    expected, _ = trained(make, forward=forward)
    got, recording = trained(make, watch, forward)
    healthy(recording.run)
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
    return recording.run


@pytest.mark.parametrize("way", WAYS)
def test_training_is_the_same_to_the_bit(watch, healthy, way):
    run = assert_unchanged(lambda: Model(way, way), watch, healthy)
    assert len(run.table("attention.entropy").values) == 3


def test_torchs_own_layers_are_seen_and_train_the_same_to_the_bit(watch, healthy, at):
    run = assert_unchanged(Encoder, watch, healthy)
    layers = {site.name: site for site in run.sites("attention") if "[" not in site.name}
    assert layers["layer.self_attn"].shape == (4, 4, 12, 12)
    assert layers["cross"].shape == (4, 4, 7, 12)
    assert set(at(run, "attention.exact", 2).values()) == {1}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_numbers_are_taken_in_single_precision(watch, healthy, at, dtype):
    def forward(model, x):
        with torch.autocast("cpu", dtype):
            return model(x).float()

    run = assert_unchanged(lambda: Model("causal", "by hand"), watch, healthy, forward)
    x, *_ = batches()
    torch.manual_seed(0)
    entropy, _, _ = materialised(Model("causal").blocks[0], x[:1])
    assert at(run, "attention.entropy")["blocks.0"] == pytest.approx(entropy.mean().item(), abs=2e-2)


@pytest.mark.parametrize("way", ["causal", "by hand"])
@pytest.mark.parametrize(("reentrant", "early_stop"), [(True, True), (False, True), (False, False)])
@pytest.mark.parametrize("what", ["block", "attention"])
def test_what_is_checkpointed_counts_once(  # noqa: C901 - a model and its loop
    watch, healthy, at, way, reentrant, early_stop, what
):
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.mlp = Attention(way), nn.Linear(32, 32)

        def forward(self, x):
            if what == "attention":
                return self.mlp(x + checkpoint(self.attention, x, use_reentrant=reentrant))
            return self.mlp(x + self.attention(x)).relu()

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.blocks = nn.Linear(32, 32), nn.ModuleList(Block() for _ in range(2))

        def forward(self, x):
            x = self.first(x)
            for block in self.blocks:
                x = checkpoint(block, x, use_reentrant=reentrant) if what == "block" else block(x)
            return x

    def plain(model, x):
        x = model.first(x)
        for block in model.blocks:
            y = x + block.attention(x)
            x = block.mlp(y) if what == "attention" else block.mlp(y).relu()
        return x

    with set_checkpoint_early_stop(early_stop):
        run = assert_unchanged(Checkpointed, watch, healthy)
    _, recording = trained(Checkpointed, watch, plain)
    for statistic in ("entropy", "max_logit", "exact", "nonfinite"):
        for step in range(3):
            expected = at(recording.run, f"attention.{statistic}", step)
            assert at(run, f"attention.{statistic}", step) == pytest.approx(expected, rel=1e-5), statistic


class Router(nn.Module):
    """A mixture of experts: tokens times a parameter, softmax over the experts."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Parameter(torch.randn(32, 4))
        self.experts = nn.Parameter(torch.randn(4, 32, 32) / 6)

    def forward(self, x):
        weights = torch.einsum("btd,de->bte", x.tanh(), self.gates).softmax(-1)
        return torch.einsum("bte,btd,edf->btf", weights, x, self.experts)


class Pooling(nn.Module):
    """Softmax over positions of the scores of a linear layer, and over the classes of a batch of heads."""

    def __init__(self) -> None:
        super().__init__()
        self.score, self.classes = nn.Linear(32, 1), nn.Parameter(torch.randn(4, 32, 12))

    def forward(self, x):
        weights = self.score(x).squeeze(-1).softmax(-1)
        return (weights[..., None] * x).sum(1, keepdim=True) + torch.bmm(x, self.classes).softmax(-1).sum()


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(32, 12)

    def forward(self, x):
        return torch.cat([self.head(x).softmax(-1), self.head(x).log_softmax(-1), x.softmax(1)], -1)


class LinearAttention(nn.Module):
    """Each of query and key has a softmax of its own; there are no logits of pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(32, 96)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return q.softmax(-1) @ (k.softmax(1).mT @ v)


@pytest.mark.parametrize("make", [Router, Pooling, Classifier, LinearAttention])
def test_another_softmax_is_no_attention(watch, healthy, make):
    run = assert_unchanged(make, watch, healthy)
    assert not run.sites("attention")


def test_a_softmax_beside_attention_does_not_count(watch, at, healthy):
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.router = Attention("by hand"), Router()

        def forward(self, x):
            return self.router(x + self.attention(x)).softmax(-1)

    run = assert_unchanged(Both, watch, healthy)
    assert {site.module_type for site in run.sites("attention")} == {"Attention"}


def test_evaluation_does_not_count(watch, at, healthy):
    model, (x, *_) = Model("causal", "by hand"), batches()
    optimizer = adam(model)
    with watch(model, optimizer) as recording:
        loss = model(x).square().mean()
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                model(100 * x)
        loss.backward()
        optimizer.step()
    healthy(recording.run)
    assert max(at(recording.run, "attention.max_logit").values()) < 10


def test_a_module_that_is_called_again_and_again_merges(watch, at, healthy):
    model, (x,) = Model("causal"), batches(1, items=1)
    optimizer = adam(model)
    block = model.blocks[0]
    with watch(model, optimizer) as recording:
        inputs = [x * scale for scale in (1.0, 3.0, 9.0)]
        expected = [materialised(block, item) for item in inputs]
        for item in inputs:
            model(item).square().mean().backward()
        optimizer.step()
        for _ in range(50):
            x = block(x)
        x.square().mean().backward()
        optimizer.step()
    healthy(recording.run)
    entropy = torch.stack([e.mean() for e, _, _ in expected]).mean().item()
    logit = max(m.max().item() for _, _, m in expected)
    assert at(recording.run, "attention.entropy")["blocks.0"] == pytest.approx(entropy, abs=1e-3)
    assert at(recording.run, "attention.max_logit")["blocks.0"] == pytest.approx(logit, rel=0.025)
    assert at(recording.run, "attention.nonfinite", 1)["blocks.0"] == 0


def test_numbers_that_are_none_are_told_of(watch, at, healthy):
    model, (x, *_) = Model("causal", "by hand"), batches()
    optimizer = adam(model)
    with torch.no_grad():
        model.blocks[1].qkv.weight[8] = math.nan  # of the second head's queries
    with watch(model, optimizer) as recording:
        model(x).square().mean().backward()
        optimizer.step()
    healthy(recording.run)
    broken = at(recording.run, "attention.nonfinite")
    assert {name for name, count in broken.items() if count} == {"blocks.1", "blocks.1[h1]"}
    assert math.isfinite(at(recording.run, "attention.entropy")["blocks.1"])  # of the other heads


@pytest.mark.parametrize(("heads", "sites"), [(1, 1), (64, 65), (65, 1)])
def test_heads_have_sites_of_their_own_if_they_are_several_but_not_very_many(watch, heads, sites):
    model = Attention(heads=heads, width=heads * 2)
    optimizer = adam(model)
    with watch(model, optimizer) as recording:
        model(torch.randn(2, 12, heads * 2)).sum().backward()
        optimizer.step()
    assert len(recording.run.sites("attention")) == sites


def test_after_the_first_steps_only_modules_with_attention_have_hooks(watch):
    model = Model("causal", "by hand")
    optimizer = adam(model)

    def before_hooks():
        return {name for name, module in model.named_modules() if module._forward_pre_hooks}

    with watch(model, optimizer, every=2):
        seen = []
        for x in batches(10):
            loss = model(x).square().mean()
            seen.append(before_hooks())
            loss.backward()
            optimizer.step()
    roots = {""}  # whose calls are watched at every step
    assert seen[0] - roots == {name for name, _ in model.named_modules()} - roots
    assert seen[6] - roots == seen[8] - roots == {"blocks.0", "blocks.1"}
    assert seen[7] - roots == seen[9] - roots == set()
    assert before_hooks() == set()


def test_a_model_that_is_saved_meanwhile_has_the_same_bytes(watch):
    def saved(watched):
        torch.manual_seed(0)
        model = Model("causal")
        optimizer = adam(model)
        recording = watch(model, optimizer) if watched else None
        model(batches(1)[0]).square().mean().backward()
        file = io.BytesIO()
        torch.save(model, file)
        if recording is not None:
            recording.close()
        return file.getvalue()

    assert saved(True) == saved(False)


def test_a_layer_that_sleeps_at_first_is_seen_when_it_runs(watch, at, healthy):
    class Dropping(Model):
        awake = False

        def forward(self, x):
            x = x + self.blocks[0](x)
            return x + self.blocks[1](x) if self.awake else x

    model = Dropping("causal", "causal")
    optimizer = adam(model)
    with watch(model, optimizer) as recording:
        for step, x in enumerate(batches(5)):
            model.awake = step >= 3
            model(x).square().mean().backward()
            optimizer.step()
    healthy(recording.run)
    assert math.isnan(at(recording.run, "attention.entropy", 2)["blocks.1"])
    assert math.isfinite(at(recording.run, "attention.entropy", 4)["blocks.1"])


class Failing(Model):
    fails = False

    def forward(self, x):
        if self.fails:
            x = x[..., :7]
        return super().forward(x)


def failure(model, x):
    try:
        model(x)
    except RuntimeError:
        return traceback.format_exc()
    raise AssertionError


def test_an_exception_in_the_forward_is_the_scripts_own_and_the_next_call_counts(watch, at, healthy):
    model = Failing("causal", "by hand")
    optimizer = adam(model)
    with watch(model, optimizer) as recording:
        for x in batches(4):
            model.fails = True
            text = failure(model, x)
            assert "stabdiag/" not in text
            assert "always_call" not in text
            model.fails = False
            model(x).square().mean().backward()
            optimizer.step()
    healthy(recording.run)
    assert list(recording.run.events_of("warning")) == []
    for step in range(4):
        assert set(at(recording.run, "attention.exact", step).values()) == {1}


def test_of_flex_attention_it_is_told_that_it_is_not_seen(watch, monkeypatch):
    """Torch refuses to train it on the host: here its own operation runs, past that refusal."""
    flex = pytest.importorskip("torch.nn.attention.flex_attention")
    for refusal in ("_validate_device", "_warn_once"):
        monkeypatch.setattr(flex, refusal, lambda *_, **__: None, raising=False)
    monkeypatch.setitem(WAYS, "flex", flex.flex_attention)
    model = Model("flex")
    optimizer = adam(model)
    with watch(model, optimizer) as recording:
        for x in batches():
            model(x).square().mean().backward()
            optimizer.step()
    told = [event.data["what"] for event in recording.run.events_of("coverage")]
    assert told.count("flex_attention") == 1
    assert list(recording.run.events_of("recorder-error")) == []


def test_under_transforms_nothing_is_read(watch, healthy):
    model = Model("by hand")
    optimizer = adam(model)
    with watch(model, optimizer) as recording:
        for x in batches():
            parameters = dict(model.named_parameters())
            torch.func.grad(lambda p, x=x: torch.func.functional_call(model, p, (x,)).square().mean())(
                parameters
            )
            torch.func.vmap(lambda item: model(item[None]).mean())(x)
            model(x).square().mean().backward()
            optimizer.step()
    healthy(recording.run)


def test_a_scripted_part_trains_on(watch, healthy):
    class Scripted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.tail = Attention(), torch.jit.script(nn.Linear(32, 32))

        def forward(self, x):
            return self.tail(self.attention(x))

    run = assert_unchanged(Scripted, watch, healthy)
    assert run.sites("attention")[0].name == "attention"


@pytest.mark.parametrize("part", [False, True])
def test_inside_torch_compile_attention_is_that_of_the_same_batch_run_eagerly(watch, at, healthy, part):
    def make(compiled=True):
        torch._dynamo.reset()
        torch.manual_seed(0)
        model = Model("causal", "by hand")
        if not compiled:
            return model, model
        if part:
            model.blocks[1] = torch.compile(model.blocks[1], backend="aot_eager")
            return model, model
        return model, torch.compile(model, backend="aot_eager")

    def run(watching, compiled=True):
        model, called = make(compiled)
        optimizer = adam(model)
        recording = watch(called, optimizer) if watching else None
        for x in batches(4):
            optimizer.zero_grad()
            called(x).square().mean().backward()
            optimizer.step()
        if recording is not None:
            recording.close()
        return [p.detach() for p in model.parameters()], recording

    expected, _ = run(False)
    got, recording = run(True)
    healthy(recording.run)
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
    _, eager = run(True, compiled=False)
    for statistic in ("entropy", "max_logit"):
        for step in (0, 3):
            numbers = at(eager.run, f"attention.{statistic}", step)
            got = at(recording.run, f"attention.{statistic}", step)
            got = {name.replace("._orig_mod", ""): value for name, value in got.items()}
            assert got == pytest.approx(numbers, abs=1e-3)
