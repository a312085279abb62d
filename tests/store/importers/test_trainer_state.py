from __future__ import annotations

import json

import pytest

from stabdiag.core.errors import DamagedRun
from stabdiag.store.directory import resolve_run
from stabdiag.store.reader import load

HISTORY = [
    {"loss": 3.0, "grad_norm": 1.0, "learning_rate": 1e-3, "epoch": 0.1, "step": 10},
    {"loss": 2.0, "grad_norm": 1.5, "learning_rate": 9e-4, "epoch": 0.2, "step": 20},
    {"eval_loss": 2.5, "eval_runtime": 1.0, "epoch": 0.2, "step": 20},
    {"train_runtime": 9.0, "train_loss": 2.5, "total_flos": 1e12, "epoch": 0.2, "step": 20},
]


def write(path, history, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"log_history": history, "global_step": history[-1]["step"], **more}))
    return path


def losses(run):
    table = run.table("run.loss")
    return dict(zip(table.steps.tolist(), table.first().tolist(), strict=True))


@pytest.mark.parametrize("named", ["trainer_state.json", "copy.json"])
def test_the_history_is_read_by_the_names_that_trainer_gives(tmp_path, named):
    run = load(resolve_run(write(tmp_path / named, HISTORY)))
    assert losses(run) == {9: 3.0, 19: 2.0}
    assert run.table("run.grad_norm").first().tolist() == [1.0, 1.5]
    assert run.table("evaluation.loss").names == ("eval_loss",)
    assert run.table("evaluation.loss").steps.tolist() == [19]
    assert any("not used: eval_runtime, train_runtime, train_loss, total_flos" in n for n in run.notes)


def test_steps_that_trainer_counts_from_one_are_those_of_a_recording(tmp_path):
    history = [{"eval_loss": 3.5, "step": 0}, *({"loss": 3.0, "step": i + 1} for i in range(300))]
    run = load(write(tmp_path / "trainer_state.json", history))
    assert run.steps == 300
    assert list(losses(run)) == list(range(300))
    assert run.table("evaluation.loss").steps.tolist() == [0]
    assert any("its step 1 is step 0 here" in note for note in run.notes)


def test_of_an_output_folder_the_checkpoint_that_reaches_furthest_is_read(tmp_path):
    for step in (20, 100, 40):
        write(tmp_path / "out" / f"checkpoint-{step}" / "trainer_state.json", [{"loss": 1.0, "step": step}])
    assert losses(load(resolve_run(tmp_path / "out"))) == {99: 1.0}
    write(tmp_path / "out" / "trainer_state.json", [{"loss": 1.0, "step": 120}])
    assert losses(load(resolve_run(tmp_path / "out"))) == {119: 1.0}
    assert losses(load(resolve_run(tmp_path / "out" / "checkpoint-40"))) == {39: 1.0}


def test_it_speaks_for_the_event_files_beside_it(tmp_path, write_events):
    write_events(tmp_path / "runs" / "today", {"train/loss": {10: 9.0}})
    write(tmp_path / "checkpoint-20" / "trainer_state.json", HISTORY)
    assert losses(load(resolve_run(tmp_path))) == {9: 3.0, 19: 2.0}


def test_a_loss_of_nan_is_measured_and_not_a_number(tmp_path):
    history = [{"loss": float("nan"), "step": 10}, {"loss": "nan", "step": 20}, {"loss": 1.0, "step": 30}]
    run = load(write(tmp_path / "trainer_state.json", history))
    assert run.table("run.nonfinite").first().tolist() == [1.0, 1.0, 0.0]


def test_a_loss_that_trainer_filtered_out_is_not_a_perfect_one(tmp_path):
    history = [
        {"loss": 2.0, "grad_norm": 1.0, "step": 10},
        {"loss": 0.0, "grad_norm": float("nan"), "step": 20},
        {"loss": 0.0, "grad_norm": 0.0, "step": 30},
    ]
    run = load(write(tmp_path / "trainer_state.json", history))
    assert run.table("run.nonfinite").first().tolist() == [0.0, 1.0, 0.0]
    assert any("read as NaN" in note for note in run.notes)


def test_a_file_that_was_cut_off_gives_what_is_whole_of_it(tmp_path):
    path = write(tmp_path / "trainer_state.json", HISTORY)
    text = path.read_text()
    path.write_text(text[: text.index("eval_loss") + 3])
    run = load(path)
    assert losses(run) == {9: 3.0, 19: 2.0}
    assert any("2 entries of its history could be read" in note for note in run.notes)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"log_history": 3}', '{"log_history": [1, null]}', "\0\xff"]
)
def test_a_file_without_a_history_is_a_clear_error(tmp_path, content):
    path = tmp_path / "trainer_state.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(DamagedRun, match="holds no numbers"):
        load(path)


@pytest.mark.slow
def test_what_the_trainer_itself_saves_and_logs_is_read(tmp_path):
    """Both of one training say the same."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.set_num_threads(1)

    class Lines(torch.utils.data.Dataset):
        def __len__(self):
            return 32

        def __getitem__(self, index):
            return {"x": torch.full((2,), float(index % 5)), "labels": torch.tensor([1.0])}

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.line = torch.nn.Linear(2, 1)

        def forward(self, x, labels):
            out = self.line(x)
            return {"loss": torch.nn.functional.mse_loss(out, labels), "logits": out}

    arguments = transformers.TrainingArguments(
        str(tmp_path / "out"), max_steps=40, logging_steps=10, save_steps=20, eval_strategy="steps",
        eval_steps=20, report_to=["tensorboard"], disable_tqdm=True, use_cpu=True,
        per_device_train_batch_size=4,
    )  # fmt: skip
    transformers.Trainer(Model(), arguments, train_dataset=Lines(), eval_dataset=Lines()).train()
    saved = load(resolve_run(tmp_path / "out"))
    logged = load(resolve_run(next(p.parent for p in tmp_path.rglob("*tfevents*"))))
    assert saved.path.name == "trainer_state.json"
    assert list(losses(saved)) == [9, 19, 29, 39]
    assert losses(saved) == pytest.approx(losses(logged))
    for series in ("run.grad_norm", "run.lr", "evaluation.loss"):
        assert saved.table(series).first() == pytest.approx(logged.table(series).first())
