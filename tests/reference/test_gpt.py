from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from stabdiag.reference.model import GPT, Config

TINY = Config(vocabulary=50, context=16, layers=2, heads=2, width=32)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_logits_have_one_row_a_token():
    logits = GPT(TINY)(torch.randint(50, (3, 11)))
    assert logits.shape == (3, 11, 50)


def test_a_future_token_does_not_change_past_logits():
    model = GPT(TINY)
    tokens = torch.randint(50, (1, 16))
    changed = tokens.clone()
    changed[0, 9] = (changed[0, 9] + 1) % 50
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :9], after[:, :9])
    assert not torch.allclose(before[:, 9:], after[:, 9:])


def test_tied_weights_are_one_parameter():
    tied, untied = GPT(Config(tied=True)), GPT(Config(tied=False))
    assert tied.head.weight is tied.tokens.weight
    assert untied.head.weight is not untied.tokens.weight
    assert len(list(untied.parameters())) == len(list(tied.parameters())) + 1


def test_output_projections_start_smaller_by_the_root_of_the_residual_terms():
    model = GPT(Config(layers=8, width=128))
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            expected = 0.02 / math.sqrt(16) if name.endswith("project.weight") else 0.02
            assert parameter.std().item() == pytest.approx(expected, rel=0.05), name
        elif name.endswith("bias"):
            assert not parameter.any(), name


def test_the_first_loss_is_that_of_a_uniform_guess():
    model = GPT(Config())
    tokens, targets = torch.randint(256, (2, 8, 128))
    loss = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
    assert loss.item() == pytest.approx(math.log(256), abs=0.05)


def test_dropout_acts_in_training_alone():
    model = GPT(Config(vocabulary=50, context=16, layers=2, heads=2, width=32, dropout=0.5))
    tokens = torch.randint(50, (2, 16))
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))


def test_too_long_a_sequence_and_an_odd_width_are_refused():
    with pytest.raises(ValueError, match="17 tokens do not fit"):
        GPT(TINY)(torch.zeros(1, 17, dtype=torch.long))
    with pytest.raises(ValueError, match="cannot be divided"):
        GPT(Config(width=30, heads=4))
