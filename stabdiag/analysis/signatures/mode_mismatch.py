"""The model trains in evaluation mode, or is evaluated in training mode."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.losscurve import harmed
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run, Table
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of


@signature(
    "mode-mismatch",
    title="The model trains in evaluation mode, or is evaluated in training mode",
    needs=("mode.training",),
    explains=(
        "norm-statistics-mismatch",
        "bad-batch",
        "overfitting",
        "loss-divergence",
        "loss-spike",
        "loss-plateau",
        "lr-divergence",
    ),
    causes=("wrong-mode",),
)
def mode_mismatch(
    run: Run, *, share: float = 0.2, burst: float = 2.0, times: float = 2.0
) -> Iterator[Finding]:
    """What it means: dropout drops nothing, or batch normalization uses frozen statistics, while the
    weights train; or both are at work while the model is evaluated, and the statistics learn from held-out
    data.

    How it is detected: by the flags of the modules when the script calls the model. Training: at more than
    the share `share` of the steps with gradients, to the last of them, modules that depend on the mode, and
    around which something is trained, are in evaluation mode, and so is the model that is called, or they
    were in training mode before. Evaluation: `burst` calls or more without gradients, between two steps, at
    least `times` times but not between all of them, all find such modules in training mode.

    Look-alikes: batch normalization that is frozen for fine-tuning stays in evaluation mode from the first
    step on while the model around it is in training mode: info. Frozen parts, targets and teachers train
    nothing. Calls without gradients at every step are part of the training: generators, rollouts, teachers.

    Fixes: `model.train()` at the head of each epoch, `model.eval()` before each evaluation; models that are
    loaded from a hub are in evaluation mode.

    Calibrated on: nothing: it reads flags. Each of four ways to be in the wrong mode is told at its step.
    No finding above info in the 11 of 61 healthy runs that have these series, 5,050 steps: fewer than 0.59
    in 1,000, at 95 %.

    Reference: PyTorch, torch.nn.Module.train, and torch.nn.Module.eval.

    Facts: share (of the steps), modules (affected), of, evaluations (calls, where these are meant), harmed.
    """
    table = run.table("mode.training")
    sites = table.sites
    # A module that is called is `optimized` here only if it depends on the mode itself.
    chosen = [i for i, s in enumerate(sites) if s.trainable and s.optimized]
    if not chosen:
        raise NotEvaluable("no part of the model does something else in evaluation than in training")
    if len(table.steps) < 2:
        raise NotEvaluable(f"modes were recorded at only {len(table.steps)} steps")
    found = _in_training(run, table, chosen, share) or _in_evaluation(run, table, chosen, burst, times)
    if found is not None:
        yield found


def _in_training(run: Run, table: Table, chosen: list[int], share: float) -> Finding | None:
    modes = table.values[:, chosen]
    asleep = np.nan_to_num(modes, nan=1.0) < 0.5
    if not asleep[-1].any():
        return None
    called = [i for i, site in enumerate(table.sites) if not site.optimized]
    whole = np.nan_to_num(table.values[:, called], nan=1.0) < 0.5
    outer = whole[-1].any() if called else asleep[-1].all()
    now = asleep[-1]
    woke = now & (~asleep).any(axis=0)
    wrong = np.flatnonzero(now if outer else woke)
    deliberate = not wrong.size
    if deliberate:
        wrong = np.flatnonzero(now)
    rows = np.flatnonzero(asleep[:, wrong].any(axis=1))
    weight = np.diff(np.r_[table.steps, run.steps])  # a row stands for the steps until the next one
    part = float(weight[rows].sum() / weight.sum())
    if part < share:
        return None
    names = tuple(table.names[chosen[i]] for i in wrong)
    # What it is at the first record it has been from the start.
    onset = int(table.steps[rows[0]]) if rows[0] else 0
    bad = harmed(run)
    kinds = sorted({table.sites[chosen[i]].module_type for i in wrong})
    severity = Severity.critical if bad else Severity.warning
    return Finding(
        severity=Severity.info if deliberate else severity,
        confidence=0.5 if deliberate else 0.95,
        sites=names[:5],
        onset_step=onset,
        peak_step=onset,
        last_step=max(int(table.steps[rows[-1]]), onset),
        message=f"{len(names)} of {len(chosen)} modules that depend on it ({', '.join(kinds[:3])}) are in "
        f"evaluation mode at {part:.0%} of the training steps, first {names[0]} at step {onset}.",
        value=part,
        threshold=share,
        evidence=(Evidence("mode.training", names[:5], threshold=0.5),),
        facts={"share": part, "modules": float(len(names)), "of": float(len(chosen)), "harmed": float(bad)},
    )


def _in_evaluation(run: Run, table: Table, chosen: list[int], burst: float, times: float) -> Finding | None:
    if "mode.evaluating" not in run or "mode.evaluations" not in run:
        return None
    calls = np.nan_to_num(run.table("mode.evaluations").first())
    active = run.table("mode.evaluating").values[:, chosen]
    evaluated = calls >= burst
    wrong = np.flatnonzero(evaluated & (np.nan_to_num(active) > 0.5).any(axis=1))
    # Calls at every recorded step belong to the training.
    if (
        len(wrong) < max(times, 0.8 * evaluated.sum())
        or evaluated.mean() > 0.8
        or _part_of_training(run, table)
    ):
        return None
    which = np.flatnonzero((np.nan_to_num(active[wrong]) > 0.5).mean(axis=0) > 0.8)
    if not which.size:
        return None
    names = tuple(table.names[chosen[i]] for i in which)
    total = float(calls[wrong].sum())
    first, last = int(table.steps[wrong[0]]), int(table.steps[wrong[-1]])
    return Finding(
        severity=Severity.warning,
        confidence=0.6,
        sites=names[:5],
        onset_step=first,
        peak_step=first,
        last_step=last,
        message=f"{len(names)} modules, first {names[0]}, were in training mode when the model was called "
        f"without gradients, {int(total)} times in {len(wrong)} places, first before step {first}.",
        value=total,
        threshold=burst,
        evidence=(Evidence("mode.evaluating", names[:5], threshold=0.5),),
        facts={"evaluations": total, "modules": float(len(names)), "of": float(len(chosen)), "harmed": 0.0},
    )


def _part_of_training(run: Run, table: Table) -> bool:
    """Whether calls without gradients come at steps that follow each other closely: a row is written for
    each, so that those steps are all known."""
    steps = table.steps[np.nan_to_num(run.table("mode.evaluations").first()) > 0]
    return len(steps) > 2 and float(np.median(np.diff(steps))) <= 2


def _run(training: np.ndarray, **more: np.ndarray) -> Run:
    sites = [Site("mode", "Model", "Model", order=0, optimized=False)]
    sites += [Site("mode", f"layers.{i}.drop", "Dropout", order=i + 1) for i in range(training.shape[1] - 1)]
    series = {"mode.training": training, **{f"mode.{name}": values for name, values in more.items()}}
    return run_of(series, sites={"mode": sites}, steps={"mode": np.arange(0, 10 * len(training), 10)})


@mode_mismatch.fires_on
def _evaluation_mode_from_the_first_evaluation_on(rng: np.random.Generator) -> Run:
    training = np.ones((40, 4))
    training[int(rng.integers(5, 20)) :] = 0
    return _run(training)


@mode_mismatch.fires_on
def _loaded_in_evaluation_mode(rng: np.random.Generator) -> Run:
    return _run(np.zeros((40, 4)))


@mode_mismatch.fires_on
def _evaluated_in_training_mode(rng: np.random.Generator) -> Run:
    evaluations = np.zeros((40, 4))
    evaluations[9::10] = 20
    evaluating = np.where(evaluations > 0, 1.0, np.nan)
    return _run(np.ones((40, 4)), evaluating=evaluating, evaluations=evaluations)


@mode_mismatch.quiet_on
def _frozen_batch_normalization(rng: np.random.Generator) -> Run:
    training = np.ones((40, 4))
    training[:, 2] = 0
    return _run(training)


@mode_mismatch.quiet_on
def _evaluated_as_it_should_be(rng: np.random.Generator) -> Run:
    evaluations = np.zeros((40, 4))
    evaluations[9::10] = 20
    return _run(np.ones((40, 4)), evaluating=np.zeros((40, 4)), evaluations=evaluations)


@mode_mismatch.quiet_on
def _a_rollout_at_every_step(rng: np.random.Generator) -> Run:
    return _run(np.ones((40, 4)), evaluating=np.ones((40, 4)), evaluations=np.full((40, 4), 5.0))
