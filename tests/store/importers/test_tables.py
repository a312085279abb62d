"""CSV and JSON lines."""

from __future__ import annotations

import codecs
import json

import pytest

from stabdiag.core.errors import DamagedRun, StabdiagError
from stabdiag.store.directory import resolve_run
from stabdiag.store.reader import load


@pytest.fixture
def read(tmp_path):
    """Loads a file of the given name and text."""

    def read(name: str, text: str, **more):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return load(resolve_run(tmp_path / name), **more)

    return read


def points(run, series):
    table = run.table(series)
    return {int(s): float(v) for s, v in zip(table.steps, table.first(), strict=True) if v == v}


def test_a_csv_has_a_step_and_a_column_a_number(read):
    run = read("m.csv", "step,loss,lr\n10,2.5,0.1\n20,1.5,\n30,nan,0.2\n")
    assert points(run, "run.loss") == {10: 2.5, 20: 1.5}
    assert points(run, "run.lr") == {10: pytest.approx(0.1), 30: pytest.approx(0.2)}
    assert run.table("run.nonfinite").first().tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    "text", ["step;loss\n1;2\n2;3\n", "step\tloss\n1\t2\n2\t3\n", "\ufeffstep, loss\n1, 2\n2, 3\n"]
)
def test_other_delimiters_and_a_byte_order_mark_are_read(read, text):
    assert points(read("m.csv", text), "run.loss") == {1: 2.0, 2: 3.0}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
@pytest.mark.parametrize(
    ("name", "text"),
    [("m.csv", "step,loss\n1,2\n2,3\n"), ("m.jsonl", '{"step":1,"loss":2}\n{"step":2,"loss":3}')],
)
def test_utf_16_is_told_by_its_mark(tmp_path, encoding, name, text):
    data = text.encode("utf-16") if encoding == "utf-16" else codecs.BOM_UTF16_BE + text.encode("utf-16-be")
    (tmp_path / name).write_bytes(data)
    for path in (tmp_path / name, tmp_path):
        assert points(load(resolve_run(path)), "run.loss") == {1: 2.0, 2: 3.0}


def test_the_count_that_trainer_sends_with_all_its_numbers_is_of_steps_that_are_done(read):
    run = read(
        "m.jsonl",
        "\n".join(f'{{"train/global_step":{n},"train/epoch":0.1,"train/loss":{n}}}' for n in (1, 2, 3)),
    )
    assert points(run, "run.loss") == {0: 1.0, 1: 2.0, 2: 3.0}


def test_a_csv_without_steps_is_counted_by_its_rows(read):
    run = read("m.csv", "loss\n3\n2\n1\n")
    assert points(run, "run.loss") == {0: 3.0, 1: 2.0, 2: 1.0}
    assert any("rows are counted" in note for note in run.notes)


def test_a_csv_of_epochs_says_so(read):
    run = read("m.csv", "epoch,train_loss,valid_loss\n0,2,3\n1,1,2\n")
    assert points(run, "evaluation.loss") == {0: 3.0, 1: 2.0}
    assert any("counts epochs" in note for note in run.notes)


def test_rows_that_are_short_broken_or_torn_cost_themselves_alone(read):
    run = read("m.csv", f"step,loss\n1,2\n\n2\nx,y\n3,{'9' * 200_000}\n\0\x01,;\n4,5\n5,1.")
    assert points(run, "run.loss") == {1: 2.0, 4: 5.0, 5: 1.0}


def test_a_csv_that_tensorboard_exported_is_named_by_its_file(read):
    run = read("run-today-tag-train_loss.csv", "Wall time,Step,Value\n1e9,1,2.0\n1e9,2,1.0\n")
    assert points(run, "run.loss") == {1: 2.0, 2: 1.0}


def test_a_csv_that_wandb_exported_has_the_name_of_the_run_before_each_column(read):
    text = '"Step","cosy-fog-1 - train/loss","cosy-fog-1 - train/loss__MIN"\n1,2.0,1.9\n2,1.0,0.9\n'
    assert points(read("wandb_export.csv", text), "run.loss") == {1: 2.0, 2: 1.0}


def test_json_lines_may_nest_and_differ(read):
    rows = [
        {"iter": 1, "train": {"loss": 2.0, "lr": 0.5}},
        {"iter": 2, "train": {"loss": 1.0}, "val": {"loss": 3}},
    ]
    run = read("log.jsonl", "\n".join(map(json.dumps, rows)) + "\n[1]\nnonsense\n" + '{"iter": 3, "tra')
    assert points(run, "run.loss") == {1: 2.0, 2: 1.0}
    assert points(run, "evaluation.loss") == {2: 3.0}
    assert any("3 lines could not be read" in note for note in run.notes)


def test_json_may_be_one_list_and_hold_a_number_a_row(read):
    rows = [{"step": 1, "metric": "loss", "value": 2.0}, {"step": 1, "metric": "lr", "value": 0.5}]
    run = read("log.json", json.dumps(rows))
    assert (points(run, "run.loss"), points(run, "run.lr")) == ({1: 2.0}, {1: 0.5})


@pytest.mark.parametrize("value", ['"NaN"', "NaN", "Infinity", '"-inf"', "1e999"])
def test_numbers_that_are_none_are_spelled_in_many_ways(read, value):
    run = read("log.jsonl", f'{{"step": 1, "loss": 1}}\n{{"step": 2, "loss": {value}}}\n')
    assert run.table("run.nonfinite").first().tolist() == [0.0, 1.0]


def test_the_steps_of_the_trainer_count_and_not_the_calls_of_the_logger(read):
    rows = [{"_step": i, "trainer/global_step": i * 50, "train_loss_step": 1.0} for i in range(3)]
    assert list(points(read("log.jsonl", "\n".join(map(json.dumps, rows))), "run.loss")) == [0, 50, 100]


def test_values_beyond_any_float_or_counter_do_no_harm(read):
    steps = ("1e400", "-5", "true")
    rows = ['{"step": 1, "loss": 1e300}', *(f'{{"step": {step}, "loss": 2}}' for step in steps)]
    run = read("log.jsonl", "\n".join([*rows, f'{{"step": 4, "loss": {"9" * 400}}}']))
    assert run.table("run.loss").first().max() == pytest.approx(3.4028235e38)
    assert run.table("run.nonfinite").first().max() == 0


def test_a_table_in_a_folder_is_a_log_if_it_knows_a_loss(tmp_path):
    (tmp_path / "data.csv").write_text("name,price\nx,1\n")
    (tmp_path / "data.jsonl").write_text('{"text": "hello"}\n')
    with pytest.raises(DamagedRun, match="no runs in"):
        resolve_run(tmp_path)
    (tmp_path / "metrics.csv").write_text("step,train_loss\n1,2\n")
    assert resolve_run(tmp_path) == tmp_path / "metrics.csv"
    (tmp_path / "more.csv").write_text("step,loss\n1,2\n")
    with pytest.raises(StabdiagError, match="holds 2 logs"):
        resolve_run(tmp_path)


def test_what_no_name_tells_is_told_and_can_be_mapped(read):
    with pytest.raises(DamagedRun, match="no number of a known name: cost_a, accuracy") as error:
        read("m.csv", "step,cost_a,accuracy\n1,2,3\n")
    assert "--map" in error.value.hint
    run = read("m.csv", "step,cost_a,accuracy\n1,2,3\n", names={"cost_a": "run.loss"})
    assert points(run, "run.loss") == {1: 2.0}
    assert run.notes == ("not used: accuracy (--map gives a number its meaning)",)
    with pytest.raises(StabdiagError, match="the log has no number 'cost'"):
        read("m.csv", "step,cost_a\n1,2\n", names={"cost": "run.loss"})


def test_what_lightning_writes_is_read_by_its_steps(tmp_path):
    lightning = pytest.importorskip("lightning")
    import torch
    from lightning.pytorch.callbacks import LearningRateMonitor
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    torch.set_num_threads(1)

    class Line(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.line = torch.nn.Linear(2, 1)

        def training_step(self, batch, _):
            loss = (self.line(batch[0]) ** 2).mean()
            self.log("train_loss", loss, on_step=True, on_epoch=True)
            return loss

        def validation_step(self, batch, _):
            self.log("val_loss", (self.line(batch[0]) ** 2).mean())

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), 1e-2)

    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(64, 2)), 4)
    trainer = lightning.Trainer(
        max_epochs=2, log_every_n_steps=4, accelerator="cpu", default_root_dir=tmp_path,
        logger=[CSVLogger(tmp_path, "csv"), TensorBoardLogger(tmp_path, "events")],
        callbacks=[LearningRateMonitor("step")], enable_model_summary=False, enable_progress_bar=False,
        enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(Line(), data, data)
    written, logged = load(resolve_run(tmp_path / "csv")), load(resolve_run(tmp_path / "events"))
    assert written.info.configuration["run.loss"] == "train_loss_step"
    assert list(points(written, "run.loss")) == [3, 7, 11, 15, 19, 23, 27, 31]
    for series in ("run.loss", "run.lr", "evaluation.loss"):
        assert points(written, series) == pytest.approx(points(logged, series))


@pytest.mark.parametrize("counter", ["it", "Global Step", "train/current_steps"])
def test_steps_are_counted_under_other_names(read, counter):
    assert points(read("m.csv", f"{counter},loss\n10,2\n20,1\n"), "run.loss") == {10: 2.0, 20: 1.0}


def test_numbers_with_a_decimal_comma_are_read_where_semicolons_part_them(read):
    run = read("m.csv", 'step;loss;lr\n1;2,5;1e-3\n2;"-1,25";1,5E-4\n')
    assert points(run, "run.loss") == {1: 2.5, 2: -1.25}
    assert points(run, "run.lr") == {1: pytest.approx(1e-3), 2: pytest.approx(1.5e-4)}


def test_of_columns_of_one_name_the_first_keeps_it_and_the_other_is_told(read):
    run = read("m.csv", "step,loss,loss\n1,2,9\n2,1,9\n")
    assert points(run, "run.loss") == {1: 2.0, 2: 1.0}
    assert any("loss (2)" in note for note in run.notes)


@pytest.mark.parametrize("name", ["m.jsonl", "m.json", "trainer_state.json"])
@pytest.mark.parametrize("nested", ["[" * 100_000, '{"a":' * 100_000, '{"log_history":[' + '{"a":' * 100_000])
def test_what_is_nested_without_end_is_no_log(read, name, nested):
    with pytest.raises(DamagedRun, match="holds no numbers"):
        read(name, nested)


def test_objects_are_read_to_a_depth_that_metrics_have(read):
    deep = '{"a":' * 400 + "1" + "}" * 400
    run = read(
        "m.jsonl", f'{{"step":1,"loss":2.0,"more":{{"lr":0.1}},"x":{deep}}}\n{{"step":2,"loss":1.0}}\n'
    )
    assert points(run, "run.loss") == {1: 2.0, 2: 1.0}
    assert not any("a/a" in note for note in run.notes)
