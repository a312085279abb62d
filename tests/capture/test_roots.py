from __future__ import annotations

import pytest
import torch
from torch import nn

from stabdiag.capture.parameters import Inventory
from stabdiag.capture.roots import Root, clean, owners, unwrapped


class Tied(nn.Module):
    """A language model whose head is its embedding: the inner container owns all parameters."""

    def __init__(self):
        super().__init__()
        embedding = nn.Embedding(11, 4)
        self.transformer = nn.ModuleDict({"wte": embedding, "block": nn.Linear(4, 4)})
        self.lm_head = nn.Linear(4, 11, bias=False)
        self.lm_head.weight = embedding.weight

    def forward(self, tokens):
        return self.lm_head(self.transformer["block"](self.transformer["wte"](tokens)))


class Wrapped(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module


def modules_of(*tops: nn.Module) -> list[nn.Module]:
    return [module for top in tops for module in top.modules()]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("_orig_mod.layers.0", "layers.0"),
        ("module._orig_mod.layers.0.weight", "layers.0.weight"),
        ("blocks.3._checkpoint_wrapped_module.attn.weight", "blocks.3.attn.weight"),
        ("_fsdp_wrapped_module.a._fsdp_wrapped_module.b", "a.b"),
        ("encoder.module.weight", "encoder.weight"),
        ("submodule.weight", "submodule.weight"),
        ("module", "module"),
        ("", ""),
    ],
)
def test_names_lose_the_prefixes_of_wrappers(name, expected):
    assert clean(name) == expected


def test_the_root_owns_what_the_optimizer_holds_and_little_else():
    model, frozen = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Linear(2, 2)
    whole = nn.ModuleList([model, frozen])
    assert owners(modules_of(whole), model.parameters()) == [model]
    assert owners(modules_of(whole), [model[0].weight]) == [model[0]]
    assert owners(modules_of(whole), whole.parameters()) == [whole]


def test_of_those_that_own_the_same_the_outermost_is_meant():
    model = Tied()
    assert owners(modules_of(model), model.parameters()) == [model]


def test_two_models_are_two_roots():
    maker, judge = nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 1))
    assert owners(modules_of(maker, judge), [*maker.parameters(), *judge.parameters()]) == [maker, judge]


def test_wrappers_are_taken_off():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    assert unwrapped(Wrapped(model)) is model
    assert unwrapped(torch.compile(model)) is model
    assert unwrapped(torch.compile(Wrapped(model))) is model
    assert owners(modules_of(Wrapped(model)), model.parameters()) == [model]


def test_a_module_with_a_child_called_module_and_others_is_no_wrapper():
    model = Wrapped(nn.Linear(2, 2))
    model.head = nn.Linear(2, 1)
    assert unwrapped(model) is model


def test_parameters_that_no_module_owns_have_no_owner_and_still_a_name():
    loose = torch.zeros(3, requires_grad=True)
    assert owners(modules_of(nn.Linear(2, 2)), [loose]) == []
    inventory = Inventory()
    inventory.optimized([loose])
    assert [site.name for site in inventory.sites({})[1]] == ["parameters.0"]


def test_tied_parameters_are_one_and_one_root_needs_no_prefix():
    inventory = Inventory()
    inventory.add([Tied()])
    names = [site.name for site in inventory.sites({})[1]]
    assert names == ["transformer.wte.weight", "transformer.block.weight", "transformer.block.bias"]


def test_several_roots_are_told_apart_by_their_classes():
    inventory = Inventory()
    roots = inventory.add([nn.Linear(1, 1), nn.Linear(1, 1), Tied()])
    assert [root.label for root in roots] == ["Linear", "Linear-2", "Tied"]
    names = [site.name for site in inventory.sites({})[1]]
    assert names[:4] == ["Linear.weight", "Linear.bias", "Linear-2.weight", "Linear-2.bias"]


def test_what_is_known_or_inside_a_root_is_no_new_root():
    model = Tied()
    inventory = Inventory()
    assert len(inventory.add([model])) == 1
    assert inventory.add([model, model.lm_head]) == []


def test_a_frozen_part_is_known_as_such():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].weight.requires_grad_(False)
    inventory = Inventory()
    inventory.add([model])
    inventory.optimized(model[1].parameters())
    told = {site.name: (site.trainable, site.optimized) for site in inventory.sites({})[1]}
    assert told == {
        "0.weight": (False, False),
        "0.bias": (True, False),
        "1.weight": (True, True),
        "1.bias": (True, True),
    }


def test_a_module_that_occurs_twice_has_its_first_name():
    shared = nn.Linear(2, 2)
    assert list(Root("", nn.Sequential(shared, nn.ReLU(), shared)).modules()) == ["Sequential", "0", "1"]
