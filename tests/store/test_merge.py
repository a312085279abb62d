"""Processes that trained together are read as the one run that they are."""

from __future__ import annotations

import numpy as np
import pytest

from stabdiag.core.event import Event
from stabdiag.core.site import Site
from stabdiag.store.events import EventLog
from stabdiag.store.reader import load
from stabdiag.store.writer import RankWriter

NAN = np.nan


def describe(values: np.ndarray) -> dict[str, float]:
    """What is recorded of elements: the oracle, in float64."""
    finite = np.isfinite(values).all()
    return {
        "min": values.min(),
        "max": values.max(),
        "absmax": np.abs(values).max(),
        "mean": values.mean(),
        "rms": np.sqrt(np.square(values).mean()),
        "norm": np.sqrt(np.square(values).sum()),
        "zeros": (values == 0).mean(),
        "nonfinite": float(not finite),
    }


class World:
    """Writes what ranks record."""

    def __init__(self, run_dir, size, ranks=None):
        self._writers = {
            rank: RankWriter(run_dir, rank) for rank in (range(size) if ranks is None else ranks)
        }
        for rank in self._writers:
            EventLog(run_dir).append(Event("process", 1.0, None, rank, {"world_size": size}))

    def write(self, rank, kind, step, sites, **columns):
        sites = [site if isinstance(site, Site) else Site(kind, site) for site in sites]
        rows = {name: np.array(values, np.float32, ndmin=1) for name, values in columns.items()}
        self._writers[rank].write(kind, step, float(step), sites, rows)


def shard(name, shape, part, size, kind="grad", **more):
    return Site(kind, name, shape=shape, placement="sharded", part=part, local_size=size, **more)


def copy(name, shape=(4,), kind="grad"):
    return Site(kind, name, shape=shape, placement="replicated", local_size=4)


def value(run, series, name=None):
    table = run.table(series)
    return table.first() if name is None else table.column(name)


def close(found, expected):
    np.testing.assert_allclose(found, np.asarray(expected, np.float32), rtol=2e-7)


@pytest.mark.parametrize("sizes", [(30, 30), (48, 16, 16), (1, 40)])
def test_parts_of_a_batch_merge_to_what_the_whole_would_have_given(tmp_path, sizes):
    world, noise = World(tmp_path, len(sizes)), np.random.default_rng(0)
    whole = {name: [] for name in describe(np.ones(1))}
    for step in range(5):
        parts = [np.round(noise.normal(size=8 * size), 1) for size in sizes]
        for rank, part in enumerate(parts):
            world.write(rank, "output_grad", step, ["layer"], **describe(part))
            world.write(rank, "run", step, ["run"], samples=sizes[rank], tokens=0, loss=part.mean())
        for name, expected in describe(np.concatenate(parts)).items():
            whole[name].append(expected)
    run = load(tmp_path)
    for name, expected in whole.items():
        np.testing.assert_allclose(value(run, f"output_grad.{name}"), expected, rtol=1e-6, err_msg=name)
    assert (value(run, "run.samples") == sum(sizes)).all()


@pytest.mark.parametrize("sizes", [(24, 24), (40, 8), (16, 16, 15, 1)])
def test_shards_of_a_parameter_merge_to_the_whole(tmp_path, sizes):
    world, noise = World(tmp_path, len(sizes)), np.random.default_rng(1)
    kept = ("norm", "absmax", "zeros", "nonfinite")
    expected = []
    for step in range(3):
        whole = noise.normal(size=48)
        expected.append(describe(whole))
        start = 0
        for rank, size in enumerate(sizes):
            part = describe(whole[start : start + size])
            start += size
            site = shard("w", (6, 8), rank, size)
            world.write(rank, "grad", step, [site], **{name: part[name] for name in kept})
    run = load(tmp_path)
    for name in kept:
        close(value(run, f"grad.{name}"), [row[name] for row in expected])
    assert run.sites("grad") == (shard("w", (6, 8), 0, 48),)


def test_shards_of_which_there_are_copies_count_once(tmp_path):
    world = World(tmp_path, 4)
    for rank in range(4):
        world.write(
            rank, "weight", 0, [shard("w", (8,), rank % 2, 4, "weight")], norm=3 + rank % 2, nonfinite=0
        )
    close(value(load(tmp_path), "weight.norm"), [5])


def test_a_rank_that_has_no_element_of_a_parameter_counts_as_nothing(tmp_path):
    world = World(tmp_path, 3)
    for rank, size in enumerate((2, 1)):
        sites = [shard("w", (30,), rank, 15), shard("short", (3,), rank, size)]
        world.write(rank, "grad", 0, sites, norm=[1, 3 + rank], nonfinite=[0, 0])
    world.write(2, "grad", 0, [], norm=[], nonfinite=[])
    run = load(tmp_path)
    close(value(run, "grad.norm", "short"), [5])
    close(value(run, "grad.norm", "w"), [np.sqrt(2)])


def test_the_ratio_of_shards_is_that_of_the_whole_even_where_a_shard_stood_still(tmp_path):
    world, noise = World(tmp_path, 2), np.random.default_rng(2)
    weight, change = noise.normal(size=(2, 10)), 0.1 * noise.normal(size=(3, 2, 10))
    change[1, 0] = 0
    for step in range(3):
        for rank in range(2):
            before, own = np.linalg.norm(weight[rank]), np.linalg.norm(change[step, rank])
            after = np.linalg.norm(weight[rank] + change[step, rank])
            part = shard("w", (20,), rank, 10, "update")
            world.write(rank, "update", step, [part], norm=own, ratio=own / before, nonfinite=0)
            world.write(
                rank, "weight", step, [shard("w", (20,), rank, 10, "weight")], norm=after, nonfinite=0
            )
    found = value(load(tmp_path), "update.ratio")
    close(found, [np.linalg.norm(c) / np.linalg.norm(weight) for c in change])


def test_the_cosine_of_shards_is_that_of_the_whole(tmp_path):
    world, noise = World(tmp_path, 2), np.random.default_rng(3)
    gradient, momentum = noise.normal(size=(2, 2, 10))
    momentum[1] += 2 * gradient[1]
    for rank in range(2):
        g, m = gradient[rank], momentum[rank]
        sizes = np.linalg.norm(g), np.linalg.norm(m)
        site = shard("w", (20,), rank, 10, "optimizer")
        cosine = g @ m / np.prod(sizes)
        world.write(rank, "optimizer", 0, [site], cosine=cosine, momentum=sizes[1], nonfinite=0)
        world.write(rank, "grad", 0, [shard("w", (20,), rank, 10)], clipped_norm=sizes[0], nonfinite=0)
    run = load(tmp_path)
    expected = (gradient * momentum).sum() / np.linalg.norm(gradient) / np.linalg.norm(momentum)
    np.testing.assert_allclose(value(run, "optimizer.cosine"), [expected], rtol=1e-6)
    close(value(run, "optimizer.momentum"), [np.linalg.norm(momentum)])


def test_copies_count_once_and_a_bad_one_is_told(tmp_path):
    world = World(tmp_path, 2)
    for step in range(3):
        for rank in range(2):
            bad = rank == 1 and step == 2
            world.write(
                rank, "weight", step, [copy("w", kind="weight")], norm=NAN if bad else 7, nonfinite=bad
            )
    run = load(tmp_path)
    close(value(run, "weight.norm"), [7, 7, 7])
    close(value(run, "weight.nonfinite"), [0, 0, 1])


def test_the_numbers_of_a_step(tmp_path):
    world = World(tmp_path, 2)
    common = {"lr": 0.1, "micro_batches": 4, "grad_norm": 3, "tier": 2}
    own = [
        {
            "loss": 1,
            "samples": 8,
            "tokens": 64,
            "step_time": 0.5,
            "memory": 10,
            "overhead": 0.1,
            "nonfinite": 0,
        },
        {
            "loss": 3,
            "samples": 8,
            "tokens": 64,
            "step_time": 0.7,
            "memory": 30,
            "overhead": 0.3,
            "nonfinite": 0,
        },
    ]
    for rank in range(2):
        world.write(rank, "run", 0, ["run"], **common, **own[rank])
        world.write(rank, "batch", 0, ["x"], fingerprint=2**24 - 5 + rank, nonfinite=0)
    run = load(tmp_path)
    expected = {"loss": 2, "samples": 16, "tokens": 128, "step_time": 0.7, "memory": 30, "overhead": 0.2}
    for name, number in {**common, **expected}.items():
        close(value(run, f"run.{name}"), [number])
    assert value(run, "batch.fingerprint") == 2**24 - 9


def test_ranks_that_share_one_batch_count_it_once(tmp_path):
    world = World(tmp_path, 4)
    for step in range(4):
        for rank in range(4):
            world.write(rank, "run", step, ["run"], samples=8, loss=rank)
            if step != 2:
                prints = [100 * step + rank // 2, 7]
                world.write(rank, "batch", step, ["x", "mask"], fingerprint=prints, nonfinite=[0, 0])
    run = load(tmp_path)
    close(value(run, "run.samples"), [16, 16, 16, 16])
    close(value(run, "run.loss"), [1.5] * 4)
    close(value(run, "batch.fingerprint", "x"), [1, 201, 601])


def test_a_value_that_is_no_number_on_one_rank_is_none_of_the_whole(tmp_path):
    world = World(tmp_path, 2)
    for rank, loss in enumerate((1.0, NAN)):
        world.write(rank, "run", 0, ["run"], loss=loss, nonfinite=rank)
        world.write(rank, "output", 0, ["layer"], mean=loss, max=loss, nonfinite=rank)
    run = load(tmp_path)
    for series in ("run.loss", "output.mean", "output.max"):
        assert np.isnan(value(run, series)).all()
    close(value(run, "run.nonfinite"), [1])


def test_a_value_that_one_rank_did_not_measure_is_that_of_the_others(tmp_path):
    world = World(tmp_path, 3)
    world.write(0, "run", 0, ["run"], loss=NAN, nonfinite=NAN)
    world.write(1, "run", 0, ["run"], loss=1, nonfinite=0)
    world.write(2, "run", 0, ["run"], loss=2, nonfinite=0)
    for rank in (1, 2):
        world.write(rank, "output", 0, [f"stage-{rank}", "shared"], rms=[rank, 2], nonfinite=[0, 0])
    run = load(tmp_path)
    close(value(run, "run.loss"), [1.5])
    assert run.table("output.rms").names == ("stage-1", "shared", "stage-2")
    close(run.table("output.rms").values, [[1, 2, 2]])


def test_a_rank_that_died_hides_no_later_step_but_what_it_held_a_part_of(tmp_path):
    world = World(tmp_path, 2)
    for step in range(6):
        for rank in range(2) if step < 4 else range(1):
            sites = [shard("cut", (8,), rank, 4), copy("whole")]
            world.write(rank, "grad", step, sites, norm=[3 + rank, 2], nonfinite=[0, 0])
            world.write(rank, "run", step, ["run"], loss=step, samples=8, grad_norm=NAN)
    run = load(tmp_path)
    close(value(run, "grad.norm", "cut"), [5, 5, 5, 5, NAN, NAN])
    close(value(run, "grad.nonfinite", "cut"), [0, 0, 0, 0, NAN, NAN])
    close(value(run, "grad.norm", "whole"), [2] * 6)
    close(value(run, "run.loss"), range(6))
    close(value(run, "run.samples"), [16] * 4 + [8] * 2)


def test_a_nonfinite_part_is_told_although_another_is_missing(tmp_path):
    world = World(tmp_path, 2)
    world.write(0, "grad", 0, [shard("w", (8,), 0, 4)], norm=1, nonfinite=0)
    world.write(1, "grad", 0, [shard("w", (8,), 1, 4)], norm=1, nonfinite=0)
    world.write(0, "grad", 1, [shard("w", (8,), 0, 4)], norm=np.inf, nonfinite=1)
    run = load(tmp_path)
    close(value(run, "grad.nonfinite"), [0, 1])
    assert np.isnan(value(run, "grad.norm")[1])


def test_shards_that_do_not_make_up_the_whole_have_no_norm(tmp_path):
    world = World(tmp_path, 4, ranks=(0, 1))  # of two other hosts, with run directories of their own
    for rank in range(2):
        world.write(rank, "grad", 0, [shard("w", (16,), rank, 4)], norm=1, nonfinite=0)
    assert np.isnan(value(load(tmp_path), "grad.norm")).all()


def test_the_gradient_norm_is_that_of_the_merged_gradients(tmp_path):
    world = World(tmp_path, 2)
    for step in range(4):
        for rank in range(2):
            sites = [
                shard("cut", (8,), rank, 4),
                copy("whole"),
                shard("idle", (8,), rank, 4, optimized=False),
            ]
            if step != 2:
                world.write(rank, "grad", step, sites, norm=[3 + rank, 12, 99], nonfinite=[0, 0, 0])
            own = np.hypot(3 + rank, 12) if step != 2 else 14
            told = {"grad_norm": own, "clipped_grad_norm": 0.5 * own}
            if step != 3 or rank == 0:
                world.write(rank, "run", step, ["run"], loss=1, **told)
    run = load(tmp_path)
    close(value(run, "run.grad_norm"), [13, 13, 14, 13])
    close(value(run, "run.clipped_grad_norm"), [6.5, 6.5, 7, 6.5])


def test_the_gradient_norm_of_copies_is_that_of_one(tmp_path):
    world = World(tmp_path, 2)
    for rank in range(2):
        world.write(rank, "grad", 0, [copy("w")], norm=3, nonfinite=0)
        world.write(rank, "run", 0, ["run"], grad_norm=3, clipped_grad_norm=1)
    close(value(load(tmp_path), "run.grad_norm"), [3])
    close(value(load(tmp_path), "run.clipped_grad_norm"), [1])


def test_each_rank_stands_beside_the_others(tmp_path):
    world = World(tmp_path, 3)
    for step in range(4):
        for rank in range(3) if step < 3 else (0, 2):
            slow = 1 + 4 * (rank == 1)
            world.write(rank, "run", step, ["run", "Adam.0.1"], step_time=[slow, NAN], loss=[rank, NAN])
    run = load(tmp_path)
    assert run.table("rank.step_time").names == ("rank-0", "rank-1", "rank-2")
    close(run.table("rank.step_time").values, [[1, 5, 1]] * 3 + [[1, NAN, 1]])
    close(run.table("rank.loss").values[0], [0, 1, 2])
    assert list(run.kinds) == ["run", "rank"]
    assert "rank.memory" not in run


def test_the_first_nonfinite_event_is_that_of_the_first_step_and_the_nearest_to_the_cause(tmp_path):
    world, log = World(tmp_path, 2), EventLog(tmp_path)
    for rank in range(2):
        world.write(rank, "run", 0, ["run"], loss=1)
    log.append(Event("nonfinite", 5.0, 8, 0, {"what": "loss"}))
    log.append(Event("nonfinite", 5.1, 7, 0, {"what": "grad"}))
    log.append(Event("stall", 5.2, 7, 0))
    log.append(Event("nonfinite", 5.3, 7, 1, {"what": "output"}))
    log.append(Event("nonfinite", 5.4, 7, 1, {"what": "grad"}))
    events = [(e.event, e.step, e.rank, e.data.get("what")) for e in load(tmp_path).events]
    assert events[2:] == [
        ("nonfinite", 7, 1, "output"),
        ("nonfinite", 7, 0, "grad"),
        ("stall", 7, 0, None),
        ("nonfinite", 7, 1, "grad"),
        ("nonfinite", 8, 0, "loss"),
    ]


def test_processes_that_trained_apart_are_not_merged(tmp_path):
    first, second = World(tmp_path, 1), World(tmp_path, 1, ranks=(1,))
    first.write(0, "run", 0, ["run"], loss=1, samples=8)
    second.write(1, "run", 0, ["run"], loss=3, samples=8)
    run = load(tmp_path)
    assert (value(run, "run.loss"), value(run, "run.samples")) == (1, 8)
    assert "rank" not in run.kinds
    assert not value(run, "run.loss").flags.owndata
    assert value(load(tmp_path, 1), "run.loss") == 3


def test_a_relaunch_is_not_merged_with_what_went_before(tmp_path):
    world = World(tmp_path, 2, ranks=(0, 1, 2, 3))
    for rank in range(4):
        world.write(rank, "run", 0, ["run"], loss=rank, samples=8)
    assert value(load(tmp_path), "run.samples") == 16
    assert value(load(tmp_path), "run.loss") == 0.5


def test_one_rank_may_be_read_alone(tmp_path):
    world = World(tmp_path, 2)
    for rank in range(2):
        world.write(rank, "run", 0, ["run"], loss=rank)
        world.write(rank, "grad", 0, [shard("w", (8,), rank, 4)], norm=3 + rank, nonfinite=0)
    alone = load(tmp_path, 1)
    assert (value(alone, "run.loss"), value(alone, "grad.norm")) == (1, 4)
    assert alone.sites("grad") == (shard("w", (8,), 1, 4),)


def test_damage_of_any_rank_is_noted(tmp_path):
    world = World(tmp_path, 2)
    for rank in range(2):
        world.write(rank, "run", 0, ["run"], loss=rank)
    (tmp_path / "rank-1" / "run.arrows").write_bytes(b"foreign" * 100)
    run = load(tmp_path)
    assert any("rank-1" in note for note in run.notes)
    assert value(run, "run.loss") == 0
