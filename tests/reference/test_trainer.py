from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from stabdiag.reference.train import (
    Options,
    build_data,
    build_model,
    build_optimizer,
    evaluate,
    learning_rate,
    loss_of,
    main,
    parse,
    train,
)

TEXT = b"All happy families are alike; each unhappy family is unhappy in its own way.\n" * 60
TINY = Options(context=16, layers=2, heads=2, width=32, batch=4, steps=12, warmup=3, device="cpu")


@pytest.fixture
def options(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(TEXT)
    return replace(TINY, text=str(path), evaluate_every=0)


def trained(options):
    options, batches, _ = build_data(options)
    model = build_model(options)
    losses = train(options, model, build_optimizer(model, options), batches)
    return model, losses


def same_weights(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_the_loss_falls_in_thirty_steps(options):
    _, losses = trained(replace(options, steps=30, lr=1e-2, final_lr=1e-3))
    assert len(losses) == 30
    assert losses[0] == pytest.approx(math.log(256), abs=0.1)
    assert losses[-5:].mean() < losses[0] - 2


def test_a_run_is_a_function_of_its_seed(options):
    first, again, other = (trained(replace(options, seed=seed))[0] for seed in (1, 1, 2))
    assert same_weights(first, again)
    assert not same_weights(first, other)


def test_an_interrupted_and_resumed_run_ends_with_the_same_bits(options, tmp_path):
    options = replace(options, dropout=0.2, accumulate=2)
    whole, losses = trained(options)

    checkpoint = str(tmp_path / "checkpoint.pt")
    options, batches, _ = build_data(replace(options, checkpoint=checkpoint, checkpoint_every=6))

    def interrupted(index):
        if index == 2 * 8:
            raise KeyboardInterrupt
        return batches(index)

    model = build_model(options)
    with pytest.raises(KeyboardInterrupt):
        train(options, model, build_optimizer(model, options), interrupted)
    resumed, rest = trained(replace(options, resume=checkpoint))
    assert torch.equal(rest, losses[6:])
    assert same_weights(whole, resumed)


def test_the_checkpoint_of_the_last_step_leaves_nothing_to_train(options, tmp_path):
    checkpoint = str(tmp_path / "checkpoint.pt")
    model, _ = trained(replace(options, checkpoint=checkpoint))
    resumed, rest = trained(replace(options, resume=checkpoint))
    assert len(rest) == 0
    assert same_weights(model, resumed)


def test_the_learning_rate_rises_linearly_and_falls_along_a_cosine():
    options = replace(TINY, lr=1.0, final_lr=0.1, warmup=10, steps=111)
    assert learning_rate(0, options) == pytest.approx(0.1)
    assert learning_rate(4, options) == pytest.approx(0.5)
    assert learning_rate(9, options) == pytest.approx(1.0)
    assert learning_rate(10, options) == pytest.approx(1.0)
    assert learning_rate(60, options) == pytest.approx(0.55)
    assert learning_rate(110, options) == pytest.approx(0.1)


def test_the_optimizer_follows_the_schedule(options):
    options, batches, _ = build_data(options)
    model = build_model(options)
    optimizer = build_optimizer(model, options)
    rates = []
    optimizer.register_step_pre_hook(lambda o, a, k: rates.append({group["lr"] for group in o.param_groups}))
    train(options, model, optimizer, batches)
    assert rates == [{learning_rate(step, options)} for step in range(options.steps)]


def test_matrices_alone_are_decayed():
    model = build_model(TINY)
    optimizer = build_optimizer(model, TINY)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in model.parameters()} == set(decay)
    assert all((decay[id(p)] > 0) == (p.dim() >= 2) for p in model.parameters())


def test_accumulated_micro_batches_give_the_gradient_of_one_large_batch(options):
    options, batches, _ = build_data(options)
    parts = [batches(i) for i in range(3)]
    whole = tuple(torch.cat(halves) for halves in zip(*parts, strict=True))
    gradients = []
    for accumulate, source in ((3, lambda i: parts[i]), (1, lambda i: whole)):
        model = build_model(options)
        optimizer = build_optimizer(model, options)
        one = replace(options, steps=1, accumulate=accumulate, clip=0.0)
        train(one, model, optimizer, source)
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-5)
    assert gradients[1].abs().max() > 1e-2


@pytest.mark.parametrize(("clip", "clipped"), [(0.1, True), (0.0, False)])
def test_the_global_norm_is_clipped(options, clip, clipped):
    options, batches, _ = build_data(replace(options, steps=1, clip=clip))
    model = build_model(options)
    train(options, model, build_optimizer(model, options), batches)
    norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item()
    assert norm == pytest.approx(0.1, rel=1e-3) if clipped else norm > 1


def test_bfloat16_rounds_the_logits_and_keeps_the_loss_in_float32(options):
    options, batches, _ = build_data(options)
    model = build_model(options)
    full = loss_of(model, *batches(0), options)
    half = loss_of(model, *batches(0), replace(options, bf16=True))
    assert half.dtype == torch.float32
    assert half != full
    assert half.item() == pytest.approx(full.item(), abs=0.05)


def test_evaluation_leaves_the_training_mode_and_the_random_state_as_they_were(options):
    options, _, held_out = build_data(replace(options, dropout=0.5))
    model = build_model(options)
    state = torch.get_rng_state()
    first, second = (evaluate(model, held_out, options) for _ in range(2))
    assert first == second
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


def test_a_vocabulary_above_bytes_trains_on_byte_pairs(options):
    options, batches, _ = build_data(replace(options, vocabulary=300))
    assert 256 < options.vocabulary <= 300
    assert max(int(batches(i)[0].max()) for i in range(4)) >= 256


def test_every_option_is_a_flag():
    options = parse(["--lr", "0.5", "--bf16", "--no-tied", "--evaluate-every", "7"], steps=3)
    assert (options.lr, options.bf16, options.tied, options.evaluate_every, options.steps) == (
        0.5,
        True,
        False,
        7,
        3,
    )


def test_the_progress_of_a_pipe_is_plain_lines(options, capsys):
    trained(replace(options, log_every=5))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["step 5/12", "step 10/12", "step 12/12"]
    assert not any("\r" in line or "\x1b" in line for line in lines)


def test_a_missing_text_ends_with_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"^train: .*nowhere"):
        main(["--text", str(tmp_path / "nowhere")])


def test_the_reference_imports_nothing_of_stabdiag():
    code = (
        "import sys, stabdiag.reference.train; "
        "print(sorted(m for m in sys.modules if m.startswith('stabdiag.') and '.reference' not in m))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
