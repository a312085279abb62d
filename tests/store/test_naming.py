from __future__ import annotations

import pytest

from stabdiag.core.errors import StabdiagError
from stabdiag.store.naming import chosen, parse_names, series_of

MEANT = {
    "run.loss": (
        "loss train/loss train_loss training_loss Loss/train trainLoss train_loss_step loss_epoch epoch_loss",
        "lm-loss-training/lm_loss loss_metrics/global_avg_loss train/CrossEntropyLoss Train/train_loss",
    ),
    "run.grad_norm": (
        "grad_norm train/grad_norm gradient_norm optim/total_grad_norm grad-norm/grad-norm",
        "grad_2.0_norm_total gradNorm",
    ),
    "run.clipped_grad_norm": ("clipped_grad_norm train/grad_norm_after_clipping",),
    "run.lr": (
        "lr learning_rate train/learning_rate lr-AdamW lr-AdamW/pg1 optim/learning_rate_group0 lr/pg0",
    ),
    "run.loss_scale": ("loss_scale loss-scale/loss-scale grad_scale",),
    "run.step_time": ("step_time iteration-time train/step_time",),
    "evaluation.loss": (
        "eval_loss val/loss validation_loss Loss/validation test/loss valid_loss eval/lm_loss",
    ),
    None: (
        "accuracy box_loss train/kl_loss loss_g lm_loss_vs_samples time step epoch grad_norm/layer1.weight",
        "eval/grad_norm lr-AdamW-momentum eval_train_loss lossy weight_decay",
    ),
}


@pytest.mark.parametrize("series", MEANT)
def test_names_mean_a_series_by_their_words(series):
    names = " ".join(MEANT[series]).split()
    assert {name: series_of(name) for name in names} == dict.fromkeys(names, series)


def test_names_of_several_words_are_read_too():
    assert series_of("lm loss") == series_of("training loss") == "run.loss"
    assert series_of("Learning Rate") == "run.lr"


def test_the_loss_of_each_step_stands_for_that_of_each_epoch():
    present = {"train_loss_epoch": 3, "train_loss_step": 100, "val_loss": 3, "test_loss": 1}
    assert chosen({}, present) == {
        "run.loss": ["train_loss_step"],
        "evaluation.loss": ["val_loss", "test_loss"],
    }


def test_what_is_mapped_by_hand_comes_first():
    present = {"loss": 100, "cost_b": 10}
    assert chosen({"cost_b": "run.loss"}, present) == {"run.loss": ["cost_b"]}


def test_mappings_are_theirs_and_ours():
    assert parse_names(("a=b=run.loss", "rate=lr")) == {"a=b": "run.loss", "rate": "run.lr"}
    for wrong in ("loss", "=run.loss", "loss="):
        with pytest.raises(StabdiagError, match="theirs=ours"):
            parse_names((wrong,))
    with pytest.raises(StabdiagError, match=r"no series 'run\.los'"):
        parse_names(("a=run.los",))
