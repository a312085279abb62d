"""A model beside its quantised, pruned or rounded copy."""

from __future__ import annotations

import copy
import math
import random

import numpy as np
import pytest
import torch
import torch.nn.utils.prune
from torch import nn

import stabdiag

TABLE = ["layer", "type_a", "type_b", "order", "calls", "contains"]


def deep(width: int = 16) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(8, width), nn.ReLU(inplace=True), nn.Linear(width, width), nn.Linear(width, 4)
    )


def named(found) -> dict:
    return {layer.name: layer for layer in (*found.layers, *found.containers)}


def test_a_copy_loses_nothing():
    model = deep()
    found = stabdiag.compare_models(model, copy.deepcopy(model), torch.randn(5, 8))
    assert {layer.own.error for layer in found.layers} == {0.0}
    assert found.whole.accumulated.snr == math.inf
    assert str(found) == "The outputs of both models are the same."


def test_losses_are_those_that_numpy_computes():
    model, batch = deep(), torch.randn(64, 8)
    rounded = copy.deepcopy(model).bfloat16()
    found = named(stabdiag.compare_models(model, rounded, batch))
    with torch.no_grad():
        inner = model[2](torch.relu(model[0](batch)))
        x = model[3](inner).double().numpy()
        own = rounded[3](inner.bfloat16()).double().numpy()
        whole = rounded(batch.bfloat16()).double().numpy()
    for loss, y in ((found["3"].introduced, own), (found["3"].accumulated, whole)):
        error = np.linalg.norm(x - y) / np.linalg.norm(x)
        assert loss.error == pytest.approx(error, rel=1e-9)
        assert loss.snr == pytest.approx(-20 * math.log10(error), rel=1e-9)
        cosine = (x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y)
        assert loss.cosine == pytest.approx(cosine, abs=1e-12)
    assert 0 < found["3"].introduced.error < found["3"].accumulated.error
    assert found[""].accumulated == found["3"].accumulated


def test_pruning_is_introduced_where_it_was_done_and_only_handed_on_elsewhere():
    model = deep()
    pruned = copy.deepcopy(model)
    torch.nn.utils.prune.l1_unstructured(pruned[2], "weight", 0.5)
    found = stabdiag.compare_models(model, pruned, torch.randn(32, 8))
    assert [(layer.name, layer.own.error > 0) for layer in found.layers][:2] == [("2", True), ("0", False)]
    assert named(found)["3"].introduced.error == 0
    assert named(found)["3"].accumulated.error > 0.01
    assert "Most is lost in 2: " in str(found)


def test_dynamic_quantisation_matches_layers_of_other_types_by_name():
    model = deep(64)
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    found = stabdiag.compare_models(model, quantised, torch.randn(32, 8))
    layers = named(found)
    assert (layers["2"].type_a, layers["2"].type_b) == ("Linear", "DynamicQuantizedLinear")
    assert 20 < layers["2"].introduced.snr < 60
    assert layers["1"].introduced.error == 0
    assert (found.only_a, found.only_b, found.notes) == ((), (), ())


def test_what_is_no_longer_finite_is_an_infinite_loss():
    model = deep()
    with torch.no_grad():
        model[2].weight.mul_(1e6)
    found = stabdiag.compare_models(model, copy.deepcopy(model).half(), torch.randn(16, 8))
    assert found.layers[0].name == "2"
    assert found.layers[0].introduced.nonfinite > 0
    assert math.isinf(found.layers[0].introduced.error)
    assert "not finite" in str(found)


class Returning(nn.Module):
    def __init__(self, returned) -> None:
        super().__init__()
        self.inner, self.outer, self._returned = nn.Linear(8, 8), nn.Linear(8, 4), returned

    def forward(self, x, scale=None):
        hidden = self.inner(x) * (1.0 if scale is None else scale)
        return self._returned(hidden, self.outer(hidden))


@pytest.mark.parametrize(
    "returned",
    [lambda h, y: (y, h), lambda h, y: {"logits": y, "hidden": [h, None, 3]}, lambda h, y: [(y,), {"a": h}]],
)
def test_tuples_lists_and_mappings_are_compared_by_their_parts(returned):
    model = Returning(returned)
    found = stabdiag.compare_models(
        model, copy.deepcopy(model).bfloat16(), {"x": torch.randn(6, 8), "scale": torch.tensor(2.0)}
    )
    assert 0 < found.whole.accumulated.error < 0.05
    assert found.notes == ()


def test_outputs_and_caches_of_transformers_are_understood():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_layer=2, n_head=2, n_embd=16, vocab_size=40, n_positions=16, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config)
    batch = {"input_ids": torch.randint(0, 40, (2, 9)), "use_cache": True}
    found = stabdiag.compare_models(model, copy.deepcopy(model).bfloat16(), batch)
    assert (found.only_a, found.only_b, found.notes) == ((), (), ())
    assert {layer.calls for layer in found.layers} == {1}
    assert 0 < named(found)["transformer.h.1"].introduced.error < 0.05


class Shared(nn.Module):
    """One layer that runs three times, and one that is held under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.first = nn.Linear(8, 8), nn.Tanh()
        self.second = self.first

    def forward(self, x):
        for _ in range(3):
            x = self.layer(x)
        return self.second(self.first(x))


def test_a_shared_module_is_one_with_all_its_calls():
    model = Shared()
    found = named(stabdiag.compare_models(model, copy.deepcopy(model).bfloat16(), torch.randn(4, 8)))
    assert (found["layer"].calls, found["first"].calls) == (3, 2)
    assert "second" not in found
    once = copy.deepcopy(model).bfloat16()
    once.second = nn.Tanh()
    told = stabdiag.compare_models(model, once, torch.randn(4, 8))
    assert told.only_b == ("second",)
    assert told.notes == ("first: called 2 times in the first model and 1 in the second",)


def test_a_copy_that_works_in_place_leaves_the_inputs_of_the_original():
    class AddsInPlace(nn.Module):
        def forward(self, x):
            return x.add_(1)

    model = nn.Sequential(nn.Linear(8, 8), AddsInPlace(), AddsInPlace())
    found = stabdiag.compare_models(model, copy.deepcopy(model), torch.randn(4, 8))
    assert {layer.own.error for layer in found.layers} == {0.0}
    assert found.whole.accumulated.error == 0
    batch = torch.randn(4, 8)
    kept = batch.clone()
    stabdiag.compare_models(model[1], model[2], batch)
    assert torch.equal(batch, kept)


def test_models_may_share_their_modules():
    model = deep()
    other = nn.Sequential(*model[:3], copy.deepcopy(model[3]).requires_grad_(False))
    with torch.no_grad():
        other[3].bias += 1
    found = stabdiag.compare_models(model, other, torch.randn(4, 8))
    assert [layer.own.error > 0 for layer in found.layers] == [True, False, False, False]
    assert stabdiag.compare_models(model, model, torch.randn(4, 8)).whole.accumulated.error == 0


def test_modules_without_a_counterpart_are_told():
    a, b = nn.Sequential(), nn.Sequential()
    for name, model in (("x", a), ("y", b)):
        model.add_module("common", nn.Linear(8, 8))
        model.add_module(name, nn.Tanh())
    found = stabdiag.compare_models(a, b, torch.randn(4, 8))
    assert (found.only_a, found.only_b) == (("x",), ("y",))
    assert "ran in the first model alone: x" in str(found)


def test_outputs_of_other_shapes_are_told_and_what_is_alike_is_compared():
    model = deep()
    narrow = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 6), nn.Linear(6, 4))
    found = stabdiag.compare_models(model, narrow, torch.randn(5, 8))
    assert set(named(found)) == {"", "0", "1", "3"}
    assert found.notes[0] == "2: its outputs have other shapes: 5 × 16 against 5 × 6"
    assert found.notes[1].startswith("3: given the other's inputs it raises RuntimeError: ")
    assert named(found)["3"].introduced is None


def test_an_argument_that_cannot_be_copied_leaves_the_accumulated_loss():
    class Inner(nn.Linear):
        def forward(self, x, items):
            return super().forward(x) * next(items)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner(8, 8)

        def forward(self, x):
            return self.inner(x, (i + 1.0 for i in range(3)))

    model = Outer()
    found = stabdiag.compare_models(model, copy.deepcopy(model).bfloat16(), torch.randn(3, 8))
    assert found.layers[0].introduced is None
    assert found.layers[0].accumulated.error > 0
    assert found.notes == ("inner: it takes a generator, which cannot be copied",)


class Busy(nn.Module):
    """Changes all that a forward pass can: statistics, counters, attributes, random numbers, weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8, max_norm=0.5)
        self.norm, self.drop, self.layer = nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 8)
        self.register_buffer("calls", torch.zeros(1), persistent=False)
        self.seen: list[int] = []

    def forward(self, x):
        self.calls += 1
        self.seen.append(len(x))
        noise = torch.randn(8) * random.random() * np.random.rand()
        return self.layer(self.drop(self.norm(self.embed(x).sum(1)))) + noise


def state_of(model: nn.Module) -> list:
    tensors = [*model.parameters(), *model.buffers()]
    return [
        [tensor.detach().clone() for tensor in tensors],
        [(id(t), t.grad, t.requires_grad) for t in tensors],
        [(module.training, len(module._forward_hooks)) for module in model.modules()],
        list(getattr(model, "seen", [])),
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
    ]


@pytest.mark.parametrize("fails", [False, True])
def test_all_is_as_before_to_the_bit(fails):
    torch.manual_seed(0)
    a = Busy()
    a.norm.eval()
    a.layer.weight.grad = torch.ones(8, 8)
    b = copy.deepcopy(a)
    b.train()
    seen = []
    hook = a.layer.register_forward_hook(lambda module, args, output: seen.append(module.training))
    batch = torch.randint(0, 20, (6, 3))
    before = [state_of(a), state_of(b)]
    if fails:
        with pytest.raises(TypeError):
            stabdiag.compare_models(a, b, {"x": batch, "y": 1})
    else:
        found = stabdiag.compare_models(a, b, batch)
        # The same random numbers for both, in every layer.
        assert found.whole.accumulated.error == 0
        assert {layer.own.error for layer in found.layers} == {0.0}
        assert set(seen) == {False}
    for old, new in zip(before, [state_of(a), state_of(b)], strict=True):
        assert all(torch.equal(x, y) for x, y in zip(old[0], new[0], strict=True))
        assert old[1:] == new[1:]
    hook.remove()


def test_no_gradient_is_made_and_none_is_needed():
    model = deep()
    grown = []
    model[2].register_forward_hook(lambda module, args, output: grown.append(output.requires_grad))
    stabdiag.compare_models(model, copy.deepcopy(model), torch.randn(3, 8, requires_grad=True))
    assert set(grown) == {False}


def test_wrappers_are_looked_through():
    class Parallel(nn.Module):
        def __init__(self, module) -> None:
            super().__init__()
            self.module = module

    model = deep()
    found = stabdiag.compare_models(torch.compile(model), Parallel(copy.deepcopy(model)), torch.randn(3, 8))
    assert set(named(found)) == {"", "0", "1", "2", "3"}


def test_a_notebook_shows_a_table_and_believes_no_name():
    hostile = "<script>alert(1)</script>\x1b[31m"
    a, b = nn.Sequential(), nn.Sequential()
    a.add_module(hostile, nn.Linear(8, 8))
    b.add_module(hostile, copy.deepcopy(a)[0].bfloat16())
    found = stabdiag.compare_models(a, b, torch.randn(4, 8))
    assert "<script" not in found._repr_html_()
    assert "&lt;script&gt;" in found._repr_html_()
    assert found._repr_html_().count("<tr>") == 2
    assert "\x1b" not in str(found)
    assert "\x1b" not in found._repr_html_()


def test_the_table_has_a_row_a_module_for_programs():
    model = deep()
    found = stabdiag.compare_models(model, copy.deepcopy(model).bfloat16(), torch.randn(4, 8))
    frame = found.frame()
    measures = [f"{what}_{m}" for what in ("introduced", "accumulated") for m in ("error", "cosine", "snr")]
    assert list(frame.columns) == TABLE + measures
    assert len(frame) == len(found.table) == 5
    assert frame.introduced_snr[:4].is_monotonic_increasing
    assert max(map(len, str(found).splitlines())) <= 100
