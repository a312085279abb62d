from __future__ import annotations

import pytest
import torch

transformers = pytest.importorskip("transformers")
WORDS = 50
SMALL = {
    "vocab_size": WORDS, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4,
}  # fmt: skip
GROUPED = {**SMALL, "num_key_value_heads": 2}
MODELS = {
    "GPT2LMHeadModel": {"vocab_size": WORDS, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4},
    "LlamaForCausalLM": GROUPED,
    "MistralForCausalLM": {**GROUPED, "sliding_window": 4},
    "BertForMaskedLM": SMALL,
    "T5ForConditionalGeneration": {
        "vocab_size": WORDS, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4,
        "decoder_start_token_id": 0,
    },
}  # fmt: skip
LAYERS = {
    "GPT2LMHeadModel": [f"transformer.h.{i}.attn" for i in range(2)],
    "LlamaForCausalLM": [f"model.layers.{i}.self_attn" for i in range(2)],
    "MistralForCausalLM": [f"model.layers.{i}.self_attn" for i in range(2)],
    "BertForMaskedLM": [f"bert.encoder.layer.{i}.attention.self" for i in range(2)],
    "T5ForConditionalGeneration": [
        *(f"encoder.block.{i}.layer.0.SelfAttention" for i in range(2)),
        *(f"decoder.block.{i}.layer.{n}Attention" for i in range(2) for n in ("0.Self", "1.EncDec")),
    ],
}  # fmt: skip


def trained(name, implementation, watch=None, dropout=True, checkpointing=None):
    torch.manual_seed(0)
    cls = getattr(transformers, name)
    model = cls(cls.config_class(**MODELS[name], attn_implementation=implementation)).train()
    if not dropout:
        for module in model.modules():
            for attribute in ("dropout", "attn_dropout", "attention_dropout"):
                if isinstance(getattr(module, attribute, None), float):
                    setattr(module, attribute, 0.0)
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    if checkpointing is not None:
        model.gradient_checkpointing_enable({"use_reentrant": checkpointing})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    recording = watch(model, optimizer) if watch else None
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(3):
        words = torch.randint(0, WORDS, (4, 12), generator=generator)
        seen = torch.ones_like(words)
        seen[0, 8:] = 0  # padded behind, and before
        seen[2, :3] = 0
        optimizer.zero_grad()
        loss = model(input_ids=words, attention_mask=seen, labels=words).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    if recording is not None:
        recording.close()
    return [*losses, *(p.detach() for p in model.parameters()), torch.get_rng_state()], recording


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("name", MODELS)
def test_each_layer_is_seen_and_training_is_the_same_to_the_bit(watch, at, healthy, name, implementation):
    expected, _ = trained(name, implementation)
    got, recording = trained(name, implementation, watch)
    healthy(recording.run)
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
    sites = recording.run.sites("attention")
    layers = sorted((site for site in sites if "[" not in site.name), key=lambda site: site.order)
    assert [site.name for site in layers] == LAYERS[name]
    assert len(sites) == 5 * len(layers)
    for statistic in ("exact", "nonfinite"):
        assert set(at(recording.run, f"attention.{statistic}", 2).values()) == {statistic == "exact"}


@pytest.mark.parametrize("name", MODELS)
def test_both_implementations_have_the_same_numbers(watch, at, name):
    _, eager = trained(name, "eager", watch, dropout=False)
    _, fused = trained(name, "sdpa", watch, dropout=False)
    for step in range(3):  # each with other items, of which some are padded
        for statistic in ("entropy", "entropy_ratio", "entropy_rest"):
            expected = at(eager.run, f"attention.{statistic}", step)
            assert at(fused.run, f"attention.{statistic}", step) == pytest.approx(expected, abs=1e-3), (
                statistic
            )


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_layers_have_the_same_numbers(watch, at, healthy, reentrant):
    expected, plain = trained("LlamaForCausalLM", "sdpa", watch)
    got, recording = trained("LlamaForCausalLM", "sdpa", watch, checkpointing=reentrant)
    healthy(recording.run)
    assert all(torch.allclose(a.float(), b.float(), atol=1e-5) for a, b in zip(expected, got, strict=True))
    for statistic in ("entropy", "max_logit", "nonfinite"):
        expected = at(plain.run, f"attention.{statistic}", 2)
        assert at(recording.run, f"attention.{statistic}", 2) == pytest.approx(expected, rel=1e-4)
