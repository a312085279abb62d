from __future__ import annotations

import numpy as np
import pytest

from stabdiag.analysis.comparison.engine import compare
from stabdiag.analysis.comparison.noise import noise
from stabdiag.core.errors import StabdiagError
from stabdiag.core.event import Event
from stabdiag.core.run import Run, RunInfo
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

STEPS, WIDTH = 200, 6
OUTPUTS = [Site("output", f"layers.{i}", "Linear", (8, 16), "float32", order=i) for i in range(WIDTH)]
GRADS = [Site("grad", f"layers.{i}.weight", "Linear", (16, 16), "float32", order=i) for i in range(WIDTH)]


def course(seed: int, level: float = 1.0, noise: float = 0.05, width: int = WIDTH) -> np.ndarray:
    """Columns about a level that falls slowly, [STEPS, width]."""
    rng = np.random.default_rng(seed)
    falling = level * (1 + np.exp(-np.arange(STEPS) / 60))[:, None]
    return falling * np.exp(noise * rng.normal(size=(STEPS, width)))


def made(
    outputs: np.ndarray | None = None,
    grads: np.ndarray | None = None,
    every: int = 1,
    sites: list[Site] = OUTPUTS,
    **more: object,
) -> Run:
    """A run of a loss, outputs (at each `every`-th step) and gradients."""
    outputs = course(1) if outputs is None else outputs
    at = np.arange(0, STEPS, every)
    series = {
        "run.loss": course(3, width=1)[:, 0],
        "run.lr": np.full(STEPS, 1e-3),
        "output.rms": outputs[at],
        "grad.norm": course(2) if grads is None else grads,
        "initial.rms": np.full((1, WIDTH), 0.3),
        "batch.fingerprint": np.random.default_rng(5).integers(0, 2**24, STEPS),
    }
    initial = [Site("initial", site.name, order=site.order) for site in GRADS]
    info = more.pop("info", RunInfo())
    series |= more.pop("series", {})  # type: ignore[arg-type,operator]
    return run_of(
        series,
        sites={"output": sites, "grad": GRADS, "initial": initial, "batch": [Site("batch", "x")]},
        steps={"output": at},
        info=info,  # type: ignore[arg-type]
        **more,  # type: ignore[arg-type]
    )


def test_the_same_run_twice_is_identical_to_the_bit():
    told = compare(made(), made())
    assert (told.verdict, told.identical_until, told.first, told.first_bit) == (
        "identical",
        STEPS - 1,
        None,
        None,
    )
    assert told.values == STEPS * (3 + 2 * WIDTH) + WIDTH
    assert all(not level.beyond for level in told.levels)


def test_one_bit_of_rounding_is_told_and_is_no_parting():
    outputs = course(1)
    outputs[40:] *= 1 + 3e-7
    told = compare(made(), made(outputs))
    assert (told.verdict, told.identical_until) == ("same", 39)
    assert (told.first_bit.series, told.first_bit.site, told.first_bit.step) == ("output.rms", "layers.0", 40)


def test_runs_part_at_the_most_upstream_site_of_the_first_step():
    outputs, grads = course(1), course(2)
    outputs[80:, 3:] *= 3
    grads[80:] *= 4
    told = compare(made(), made(outputs, grads))
    first = told.first
    assert (told.verdict, told.identical_until) == ("part", 79)
    assert (first.series, first.site, first.step, first.within) == ("output.rms", "layers.3", 80, 79)
    assert (first.sites, first.of, first.until) == (3, WIDTH, STEPS - 1)
    assert first.b / first.a == pytest.approx(3, rel=1e-5)
    # In the backward pass the last layer is upstream.
    assert [(p.series, p.site) for p in told.followed] == [("grad.norm", "layers.5.weight")]


def test_time_comes_before_place():
    outputs, grads = course(1), course(2)
    outputs[90:, 0] *= 3
    grads[70:, 2] *= 6
    told = compare(made(), made(outputs, grads))
    assert (told.first.series, told.first.site, told.first.step) == ("grad.norm", "layers.2.weight", 70)
    assert [(p.series, p.step) for p in told.followed] == [("output.rms", 90)]


def test_what_is_recorded_rarely_may_have_parted_first():
    outputs, grads = course(1), course(2)
    outputs[83:, 3:] *= 4
    grads[83:, :4] *= 6
    told = compare(made(every=10), made(outputs, grads, every=10))
    assert (told.first.series, told.first.site) == ("output.rms", "layers.3")
    assert (told.first.step, told.first.within) == (90, 82)


def test_a_difference_within_the_noise_of_the_runs_is_no_parting():
    told = compare(made(), made(course(1) * 1.1))
    assert (told.verdict, told.first) == ("same", None)
    assert compare(made(course(1, noise=0.003)), made(course(1, noise=0.003) * 1.1)).verdict == "part"


def test_one_value_that_strays_is_no_parting_and_one_far_out_is():
    stray, far = course(1), course(1)
    stray[100, 2] *= np.exp(6 * 0.05 * np.sqrt(2) * 1.4)
    far[100, 2] *= 8
    assert compare(made(), made(stray)).verdict == "same"
    told = compare(made(), made(far))
    assert (told.first.step, told.first.until, told.first.sites) == (100, 100, 1)


def test_what_only_one_run_lost_is_infinitely_far():
    outputs = course(1)
    outputs[150:, 4] = np.nan
    flags = np.isnan(outputs).astype(float)
    broken = made(outputs, series={"output.nonfinite": flags})
    whole = made(series={"output.nonfinite": np.zeros_like(flags)})
    told = compare(whole, broken)
    assert (told.first.site, told.first.step, told.first.b) == ("layers.4", 150, np.inf)
    assert told.to_json()["first"]["b"] is None
    assert compare(broken, broken).verdict == "identical"


def test_a_learning_rate_of_its_own_comes_first_and_has_no_noise():
    other = np.full(STEPS, 1e-3)
    other[50:] = 1.001e-3
    outputs = course(1)
    outputs[51:] *= 2
    told = compare(made(), made(outputs, series={"run.lr": other}))
    assert (told.first.series, told.first.step, told.first.excess) == ("run.lr", 50, None)
    assert told.followed[0].series == "output.rms"
    assert told.verdict == "part"


def test_other_initial_weights_leave_the_levels_to_compare():
    other = {"initial.rms": np.full((1, WIDTH), 0.31), "run.loss": course(33, width=1)[:, 0]}
    outputs = course(11)
    outputs[:, 2] *= 5
    told = compare(made(), made(outputs, course(12), series=other))
    assert (told.verdict, told.first.series, told.first.step) == ("unpaired", "initial.rms", 0)
    loss = told.levels[0]
    assert (loss.series, loss.beyond) == ("run.loss", False)
    assert 0 < loss.noise < 1
    assert [(level.site, level.beyond) for level in told.levels[1:]] == [("layers.2", True)]
    assert told.levels[1].b / told.levels[1].a == pytest.approx(5, rel=0.1)


def test_other_batches_from_the_start_are_another_draw_and_from_the_middle_a_parting():
    batches = np.random.default_rng(5).integers(0, 2**24, STEPS)
    other = batches + 1
    assert compare(made(), made(series={"batch.fingerprint": other})).verdict == "unpaired"
    late = np.where(np.arange(STEPS) < 60, batches, other)
    told = compare(made(), made(series={"batch.fingerprint": late}))
    assert (told.verdict, told.first.series, told.first.step) == ("part", "batch.fingerprint", 60)


def test_rounding_of_a_coarser_type_is_noise():
    def typed(dtype: str, outputs: np.ndarray) -> Run:
        return made(
            outputs, sites=[Site("output", s.name, "Linear", s.shape, dtype, s.order) for s in OUTPUTS]
        )

    smooth = course(1, noise=0.0)
    rounded = smooth * (1 + 0.04)
    assert compare(typed("float32", smooth), typed("float32", rounded)).verdict == "part"
    told = compare(typed("float32", smooth), typed("bfloat16", rounded))
    assert told.verdict == "same"
    assert [d.what for d in told.settings] == ["computed in"]


def test_runs_of_other_lengths_cadences_and_gaps_are_held_against_each_other():
    outputs = course(1)
    outputs[100:, 1:] *= 3
    a, b = made(every=6), made(outputs, every=7).window(0, 150)
    told = compare(a, b)
    assert told.steps == (STEPS, 151)
    assert (told.first.series, told.first.site) == ("output.rms", "layers.1")
    assert 98 <= told.first.within <= 99
    assert told.first.step == 105
    assert any("read between" in note for note in told.notes)


def test_processes_are_not_held_to_the_fingerprints_of_their_own_batches():
    alone, two = made(), made(info=RunInfo(world_size=2), series={"batch.fingerprint": np.arange(STEPS)})
    told = compare(alone, two)
    assert (told.verdict, told.first_bit) == ("identical", None)
    assert [note.partition(" ")[0] for note in told.notes] == ["1", "whether"]


def test_what_only_one_has_is_told():
    sites = [*OUTPUTS[:5], Site("output", "extra", order=5)]
    told = compare(made(), made(sites=sites, series={"logits.max": np.ones(STEPS)}))
    assert told.only_a.sites == {"output": ("layers.5",)}
    assert told.only_b.sites == {"output": ("extra",)}
    assert told.only_b.series == ("logits.max",)
    lost = course(3, width=1)[:, 0]
    lost[120:] += np.linspace(1, 60, 80)
    told = compare(made(), made(series={"run.loss": lost}))
    assert "loss-divergence" in [f.signature for f in told.only_b.findings]
    assert told.only_a.findings == ()


def test_settings_that_differ_are_listed_and_others_are_not():
    def with_rate(rate: float, commit: str) -> Run:
        groups = [{"lr": rate, "betas": [0.9, 0.95], "parameters": 4}]
        event = Event("optimizer", 0.0, 0, data={"index": 0, "name": "AdamW", "groups": groups})
        versions = {"torch": "2.4", "python": "3.11"}
        info = RunInfo(command=("train.py", "--lr", f"{rate}"), git_commit=commit, versions=versions)
        return made(info=info, events=[event])

    told = compare(with_rate(1e-3, "abc"), with_rate(3e-3, "def"))
    assert [(d.what, d.a, d.b) for d in told.settings] == [
        ("command", "train.py --lr 0.001", "train.py --lr 0.003"),
        ("git commit", "abc", "def"),
        ("optimizer: learning rate", "0.001", "0.003"),
    ]


def test_runs_without_a_common_place_say_so():
    a = run_of({"output.rms": course(1)}, sites={"output": OUTPUTS})
    b = run_of({"grad.norm": course(2)}, sites={"grad": GRADS})
    told = compare(a, b)
    assert (told.verdict, told.values, told.identical_until) == ("incomparable", 0, None)


def test_a_run_without_a_step_cannot_be_compared():
    with pytest.raises(StabdiagError, match="no recorded step"):
        compare(run_of({}), made())


def test_noise_is_that_around_a_trend_and_knows_no_future():
    rng = np.random.default_rng(0)
    quiet = 0.1 * rng.normal(size=(400, 3)) + np.linspace(0, 40, 400)[:, None]
    assert noise(quiet)[-1] == pytest.approx(0.1, rel=0.4)
    wild = quiet.copy()
    wild[200:] += 50 * rng.normal(size=(200, 3))
    assert np.array_equal(noise(wild)[:208], noise(quiet)[:208])
    assert (noise(wild)[300:] > 10).all()
    assert not noise(np.zeros((2, 1))).any()


def test_a_norm_that_was_added_up_in_another_order_is_no_difference_of_the_trainings():
    tier, norms = np.full(STEPS, 2.0), course(4, width=1)[:, 0].astype(np.float32)
    other, rounded = tier.copy(), norms.copy()
    other[50:], rounded[50:] = 0.0, np.nextafter(norms[50:], np.float32(9))
    a = made(series={"run.grad_norm": norms, "run.tier": tier})
    assert compare(a, made(series={"run.grad_norm": rounded, "run.tier": other})).verdict == "identical"
    told = compare(a, made(series={"run.grad_norm": rounded, "run.tier": tier}))
    assert (told.verdict, told.identical_until) == ("same", 49)


def test_runs_are_the_same_only_until_a_step_that_both_recorded():
    steps, falling = {"run": np.arange(10, 210, 10)}, np.linspace(2, 1, 20)
    other = np.where(np.arange(20) < 5, falling, 3)
    told = compare(*(run_of({"run.loss": loss}, steps=steps) for loss in (falling, other)))
    assert (told.identical_until, told.first_bit.step) == (50, 60)


def test_what_the_log_of_another_tool_does_not_tell_is_no_difference():
    log = RunInfo(configuration={"read from": "CSV"})
    told = compare(made(info=RunInfo(command=("train.py",))), made(info=log))
    assert told.settings == ()
    assert any(note.startswith("B is the log of another tool") for note in told.notes)
    rich = made(series={"update.ratio": course(9)})
    assert compare(rich, made(info=log)).only_a.series == ()
    assert compare(rich, made()).only_a.series == ("update.ratio",)


def test_runs_that_differ_from_their_first_record_on_are_identical_at_no_step():
    steps = {"run": np.arange(10, 210, 10)}
    a, b = (run_of({"run.loss": np.linspace(level, 1, 20)}, steps=steps) for level in (2.0, 3.0))
    told = compare(a, b)
    assert (told.identical_until, told.first_bit.step, told.first_bit.within) == (None, 10, -1)
