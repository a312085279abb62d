from __future__ import annotations

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from stabdiag.core.errors import DamagedRun, StabdiagError
from stabdiag.store.directory import resolve_run
from stabdiag.store.reader import load


def loss_of(run):
    table = run.table("run.loss")
    return dict(zip(table.steps.tolist(), table.first().tolist(), strict=True))


def test_numbers_keep_their_steps_and_their_times(tmp_path, write_events):
    write_events(tmp_path, {"train/loss": {10: 2.0, 20: 1.0}, "train/learning_rate": {20: 0.5}})
    run = load(resolve_run(tmp_path))
    assert loss_of(run) == {10: 2.0, 20: 1.0}
    assert run.table("run.lr").first().tolist() == pytest.approx([np.nan, 0.5], nan_ok=True)
    assert run.kinds["run"].times.tolist() == [1e9 + 10, 1e9 + 20]
    assert run.notes == ()


def test_scalars_that_are_written_as_tensors_are_read_and_other_tensors_are_not(tmp_path):
    scalar = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"))
    image = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="images"))
    number = TensorProto(dtype=DT_FLOAT, float_val=[1.5])
    packed = TensorProto(dtype=DT_FLOAT, tensor_content=np.float32(2.5).tobytes())
    writer = EventFileWriter(str(tmp_path))
    for step, tensor, described in ((0, number, scalar), (1, packed, None)):
        values = [
            Summary.Value(tag="epoch_loss", tensor=tensor, metadata=described),
            Summary.Value(tag="learning_rate", tensor=number, metadata=image),
        ]
        writer.add_event(Event(step=step, summary=Summary(value=values)))
    writer.close()
    run = load(tmp_path)
    assert loss_of(run) == {0: 1.5, 1: 2.5}
    assert "run.lr" not in run


def test_folders_of_training_and_validation_are_one_run(tmp_path, write_events):
    write_events(tmp_path / "train", {"epoch_loss": {0: 2.0, 1: 1.0}})
    write_events(tmp_path / "validation", {"epoch_loss": {0: 2.5, 1: 1.5}})
    run = load(resolve_run(tmp_path))
    assert loss_of(run) == {0: 2.0, 1: 1.0}
    assert run.table("evaluation.loss").first().tolist() == [2.5, 1.5]
    assert load(resolve_run(tmp_path / "validation")).table("run.loss").first().tolist() == [2.5, 1.5]


def test_scalars_added_as_a_group_belong_to_the_writer_beside_whose_events_they_lie(tmp_path, write_events):
    write_events(tmp_path, {"lr": {0: 0.1}})
    write_events(tmp_path / "loss_train", {"loss": {0: 2.0}})
    write_events(tmp_path / "loss_val", {"loss": {0: 2.5}})
    run = load(resolve_run(tmp_path))
    assert {"run.loss", "run.lr", "evaluation.loss"} <= set(run.series)


def test_experiments_that_are_called_test_are_no_evaluations(tmp_path, write_events):
    write_events(tmp_path / "first_test", {"loss": {0: 2.0}})
    write_events(tmp_path / "second_test", {"loss": {0: 2.0}})
    with pytest.raises(StabdiagError, match="holds 2 logs") as error:
        resolve_run(tmp_path)
    assert "first_test" in error.value.hint
    assert "second_test" in error.value.hint
    write_events(tmp_path / "alone" / "test", {"loss": {0: 2.0}})
    assert loss_of(load(resolve_run(tmp_path / "alone"))) == {0: 2.0}


def test_runs_below_one_that_has_events_itself_are_told(tmp_path, write_events):
    write_events(tmp_path, {"loss": {0: 2.0}})
    write_events(tmp_path / "ablation", {"loss": {0: 3.0}})
    run = load(resolve_run(tmp_path))
    assert loss_of(run) == {0: 2.0}
    assert run.notes == ("further logs below it that were not read: 1",)


def test_several_files_of_one_run_follow_each_other(tmp_path, write_events):
    write_events(tmp_path, {"loss": dict.fromkeys(range(0, 100, 10), 1.0)})
    write_events(tmp_path, {"loss": dict.fromkeys(range(50, 80, 10), 2.0)})
    run = load(tmp_path)
    assert loss_of(run) == {**dict.fromkeys(range(0, 50, 10), 1.0), **dict.fromkeys(range(50, 80, 10), 2.0)}
    assert any("restarted at step 50" in note for note in run.notes)


def test_a_torn_tail_loses_one_event_and_is_told(tmp_path, write_events):
    path = write_events(tmp_path, {"loss": dict.fromkeys(range(50), 1.0)})
    whole = path.read_bytes()
    for cut in (1, 5, 20, 31):
        path.write_bytes(whole[:-cut])
        run = load(path)
        assert len(loss_of(run)) in (48, 49)
        assert any("bytes could not be read" in note for note in run.notes)


def test_damage_in_the_middle_keeps_what_is_before_it(tmp_path, write_events):
    path = write_events(tmp_path, {"loss": dict.fromkeys(range(50), 1.0)})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    run = load(path)
    assert 10 < len(loss_of(run)) < 40
    assert any("is damaged" in note for note in run.notes)


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 100, b"no events at all, but quite some text", b"\xff" * 7]
)
def test_a_file_without_events_is_a_clear_error(tmp_path, content):
    (tmp_path / "events.out.tfevents.1.host").write_bytes(content)
    with pytest.raises(DamagedRun, match="holds no numbers"):
        load(tmp_path)


def test_events_of_torch_are_read(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(20):
            writer.add_scalar("Loss/train", 1.0 / (step + 1), step)
            writer.add_scalar("Loss/val", 2.0, step, new_style=True)
            writer.add_histogram("weights", np.ones(3), step)
    run = load(resolve_run(tmp_path))
    assert len(loss_of(run)) == 20
    assert run.table("evaluation.loss").names == ("Loss/val",)
