"""What each model and each kind of data is known by."""

from __future__ import annotations

import math

import pytest
import torch

from stabdiag.zoo.architecture import ARCHITECTURES
from stabdiag.zoo.data.diffused import TIMES, diffused
from stabdiag.zoo.data.grammar import grammar
from stabdiag.zoo.data.graphs import graphs, mean_of_neighbors
from stabdiag.zoo.data.hidden import hidden
from stabdiag.zoo.data.scenes import FIRST_COLOR, LENGTH, PALETTE, SYNONYMS, scenes
from stabdiag.zoo.data.textures import CLASSES, textures
from stabdiag.zoo.models.llama import GroupedAttention, rotated
from stabdiag.zoo.models.ssm import Mixer
from stabdiag.zoo.optimizer import OPTIMIZERS


def parts(name, seed=5, batch=4):
    return ARCHITECTURES[name].training("adamw", seed, batch).parts


@pytest.mark.parametrize("name", [a.id for a in ARCHITECTURES if "causal" in a.traits])
def test_a_causal_model_does_not_see_what_comes(name):
    built = parts(name)
    inputs = built.batches(0)[0]
    changed = inputs.clone()
    changed[:, -3:] = (changed[:, -3:] + 1) % 8
    with torch.no_grad():
        one, other = built.model(inputs), built.model(changed)
    torch.testing.assert_close(one[:, :-3], other[:, :-3], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(one[:, -3:], other[:, -3:])


def test_rotary_products_depend_on_the_distance_alone():
    turns = GroupedAttention(48, 6, 2).turns
    query, key = torch.randn(8), torch.randn(8)
    rows = torch.stack([query, key]).repeat_interleave(len(turns), 0).view(1, 2, len(turns), 8)
    turned = rotated(rows, turns)[0]
    products = turned[0] @ turned[1].T
    torch.testing.assert_close(products[7, 3], products[20, 16], atol=1e-5, rtol=1e-4)
    assert not torch.isclose(products[7, 3], products[7, 5])


def test_groups_of_heads_share_keys_and_values():
    attention = GroupedAttention(48, 6, 2)
    x = torch.randn(2, 10, 48)
    attention.to_v.weight.data[8:] = 0  # those of the second group
    attention.to_out.weight.data = torch.eye(48)
    heads = attention(x).unflatten(-1, (6, 8))
    assert heads[..., :3, :].all()
    assert not heads[..., 3:, :].any()


def test_the_scan_is_the_masked_product_of_its_dual_form():
    mixer = Mixer(16, 2, 4)
    x, dt = torch.randn(3, 7, 2, 5), torch.rand(3, 7, 2)
    b, c = torch.randn(3, 7, 4), torch.randn(3, 7, 4)
    gone = (dt * -mixer.a_log.exp()).cumsum(1).transpose(1, 2)
    decay = (gone[..., :, None] - gone[..., None, :]).exp().tril()
    mixing = decay * (c @ b.transpose(1, 2))[:, None] * dt.transpose(1, 2)[..., None, :]
    expected = torch.einsum("bhts,bshp->bthp", mixing, x)
    torch.testing.assert_close(mixer.scan(x, dt, b, c), expected, atol=1e-5, rtol=1e-4)


def test_two_towers_find_each_pair_wherever_it_stands():
    built = parts("two-tower", batch=6)
    pictures, words = built.batches(0)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    with torch.no_grad():
        before, after = built.model(pictures, words), built.model(pictures, words[order])
    torch.testing.assert_close(before[:, order], after, atol=1e-4, rtol=1e-4)


def test_the_temperature_of_two_towers_has_an_end():
    model = parts("two-tower").model
    model.logit_scale.data.fill_(20.0)
    with torch.no_grad():
        similarity = model(*parts("two-tower").batches(0))
    assert similarity.abs().max() <= 100.01


def test_the_batch_norms_of_two_towers_keep_their_statistics_as_long_as_asked():
    model = ARCHITECTURES["two-tower"].training("adamw", 5, 4, momentum=1e-4).model
    kept = {m.momentum for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert kept == {1e-4}


def test_no_message_goes_from_one_graph_to_another():
    built = parts("graph")
    features, edges, _ = built.batches(0)
    changed = features.clone()
    changed[0] += 1
    with torch.no_grad():
        differs = (built.model(features, edges) != built.model(changed, edges)).any(1)
    assert differs[0]
    assert not differs[12:].any()


def test_the_denoiser_looks_at_the_time():
    built = parts("denoiser")
    noised, times, noise = built.batches(0)
    with torch.no_grad():
        one, other = built.model(noised, times), built.model(noised, (times + 300) % TIMES)
    assert one.shape == noise.shape
    assert not torch.allclose(one, other)


def test_a_vision_transformer_judges_by_its_class_token_alone():
    built = parts("vit")
    seen = []
    built.model.norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    scores = built.model(built.batches(0)[0])
    (gradient,) = torch.autograd.grad(scores.square().sum(), seen)
    assert gradient[:, 0].any()
    assert not gradient[:, 1:].any()


def test_a_sentence_has_eight_to_twenty_seven_tokens_and_an_end():
    tokens = grammar(3, 16, 200, 40)(0)[0]
    for row in tokens:
        ends = (row == 0).nonzero().flatten()
        assert len(ends) > 5
        assert all(9 <= long <= 28 for long in ends.diff().tolist())
    assert tokens.max() < 40


def test_hidden_states_last_for_a_while():
    """A token tells of the next, and less of one far from it."""
    tokens = torch.cat([hidden(3, 64, 60, 16)(i)[0] for i in range(8)])

    def told(distance):
        pairs = 16 * tokens[:, :-distance] + tokens[:, distance:]
        together = torch.bincount(pairs.flatten(), minlength=256).view(16, 16) / pairs.numel()
        alone = together.sum(1, keepdim=True) * together.sum(0, keepdim=True)
        return torch.special.xlogy(together, together / alone.clamp(min=1e-12)).sum()

    assert told(1) > 2 * told(20)


def test_diffused_pictures_are_made_of_the_picture_and_the_noise():
    clean = textures(3, 64, channels=1, noise=0.0)
    pictures = clean(0)[0]
    noised, times, noise = diffused(clean, 3)(0)
    share = (1 - torch.linspace(1e-4, 0.02, TIMES)).cumprod(0)[times].view(-1, 1, 1, 1)
    torch.testing.assert_close(noised, share.sqrt() * pictures + (1 - share).sqrt() * noise)


def test_textures_come_in_all_classes_about_zero():
    pictures, classes = textures(3, 400)(0)
    assert classes.unique().tolist() == list(range(CLASSES))
    assert abs(pictures.mean()) < 0.1
    assert 0.7 < pictures.std() < 1.3


def test_a_caption_names_the_ground_of_its_picture():
    pictures, words = scenes(3, 50, noise=0.0)(0)
    corners = pictures[:, :, 0, -1], pictures[:, :, -1, 0]  # a shape covers one of them at most
    for row, one, other in zip(words.tolist(), *corners, strict=True):
        named = {(word - FIRST_COLOR) // SYNONYMS for word in row if 2 <= word < 2 + SYNONYMS * len(PALETTE)}
        shown = [int((corner == PALETTE).all(1).nonzero()) for corner in (one, other)]
        assert {*shown} <= named
    assert words.shape == (50, LENGTH)


def test_a_label_of_a_node_depends_on_its_neighbors():
    points, edges, _ = graphs(3, 8, 5, 4)(0)
    assert torch.equal(edges.flip(0).sort(1).values, edges.sort(1).values)
    means = mean_of_neighbors(points, edges)
    lone = edges[1].bincount(minlength=len(points)) == 0
    assert not means[lone].any()
    node = int((~lone).nonzero()[0])
    torch.testing.assert_close(means[node], points[edges[0][edges[1] == node]].mean(0))


def test_adafactor_moves_weights_by_shares_of_their_size():
    steps = []
    for size in (1.0, 100.0):
        weight = torch.nn.Parameter(size * torch.ones(4, 4))
        optimizer = OPTIMIZERS["adafactor"].make([weight], 0.01)
        weight.grad = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
        optimizer.step()
        steps.append(float((weight.detach() - size).norm()))
    assert steps[1] == pytest.approx(100 * steps[0], rel=1e-3)


def test_rmsprop_is_no_more_than_a_share_of_gradients():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = OPTIMIZERS["rmsprop"].make([weight], 0.01)
    for _ in range(400):
        weight.grad = torch.full((1,), 7.0)
        before = weight.item()
        optimizer.step()
    assert before - weight.item() == pytest.approx(0.01, rel=0.02)


def test_nadam_looks_ahead_along_its_momentum():
    looked = {}
    for name in ("adam", "nadam"):
        weight = torch.nn.Parameter(torch.zeros(1))
        optimizer = OPTIMIZERS[name].make([weight], 0.01)
        for gradient in [1.0] * 20 + [-1.0]:
            weight.grad = torch.full((1,), gradient)
            before = weight.item()
            optimizer.step()
        looked[name] = weight.item() - before
    assert math.copysign(1, looked["adam"]) == -1
    assert looked["nadam"] > looked["adam"]
