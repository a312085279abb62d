"""One side of a game has won, and neither learns any more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.episodes import mostly_to_the_end
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.history import history
from stabdiag.analysis.incomparable import targets_move
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

RECORDS = 15
BEGIN = 3
"""Records that say where a loss began."""

CRUSHED = 0.01
"""Share of its first loss below which a side has nothing left to learn from."""


@signature(
    "gan-imbalance",
    title="One side of a game has won, and neither learns any more",
    needs=("side.loss", "side.grad_norm"),
    explains=("vanishing-gradient", "loss-plateau", "loss-divergence", "update-ratio-low", "saturated-units"),
    causes=("learning-rate-too-low", "learning-rate-too-high", "unbounded-output-logits"),
)
def gan_imbalance(
    run: Run,
    *,
    won: float = 0.05,
    faded: float = 0.15,
    lost: float = 2.0,
    leaves: float = 0.5,
    outpaced: float = 50.0,
    persists: float = 100.0,
) -> Iterator[Finding]:
    """What it means: a discriminator that is never wrong (or a generator that always fools it) has a loss
    at its floor and no gradient left; the other side follows a signal that says nothing of where to go.

    How it is detected: of two optimizers with losses of their own, one side's loss is, in the median of the
    last third of the records and at nine of ten of them, below `won` of what it was in the first records, and
    its gradient norm below `faded` of the largest of its running medians; and the other side's loss is more
    than `lost` times as large as at first and above it, or its gradient has faded as far. All that over
    `persists` steps or more. A warning; critical below 0.01. Or one side's loss is below `leaves` of its
    first and the other's has risen as above, and the weights of the first move `outpaced` times as fast, in
    the median of their update ratios: a warning, long before the game is lost.

    Look-alikes: balanced games have losses that hardly move: 1.1 to 1.4 (2 ln 2) of the discriminator, 0.7
    to 1 of the generator. A discriminator at 0.4 beside a generator at 3.6 still teaches: its gradient does
    not fade. Critics without a floor (Wasserstein) have no loss that saturates. A critic of values that
    converges beside a policy: it is taught by targets, made of values that grow with the policy, where a
    discriminator's are real and made for ever; such targets are no game's.

    Fixes: a smaller learning rate of the side that wins, or fewer of its steps; a gradient penalty;
    smoothed labels; noise on the inputs.

    Calibrated on: small games of perceptrons: balanced ones keep the losses within 0.8 to 1.1 of the first,
    five steps of the discriminator to one leave 0.3 of its loss and its whole gradient, a generator that
    learns 300 and 1,000 times as slowly leaves 0.016 and 0.0008, and 0.12 and 0.01 of the gradient. No
    finding above info in the 4 of 61 healthy runs that have these series, 6,000 steps: fewer than 0.5 in
    1,000, at 95 %.

    Reference: Arjovsky and Bottou 2017 (arXiv 1701.04862); Mescheder et al. 2018 (arXiv 1801.04406).

    Facts: loss_share (last over first, of the side that wins), gradient_share (last over largest) or
    pace (its update ratio over the other's),
    other_loss (last over first, of the side that loses), winner (0 or 1), lr_ratio (of the side that wins
    over the other), lr (of the side that loses).
    """
    loss, norm = run.table("side.loss"), run.table("side.grad_norm")
    if len(loss.sites) != 2:
        raise NotEvaluable(f"{len(loss.sites)} optimizers have a loss of their own, not two")
    if targets_move(run):
        raise NotEvaluable("the targets grow while it trains: values of a policy, and no game")
    rows = np.isfinite(loss.values).all(axis=1) & np.isfinite(norm.values).all(axis=1)
    if rows.sum() < RECORDS or loss.steps[rows][-1] - loss.steps[rows][0] < persists:
        raise NotEvaluable(f"both sides were measured together at only {int(rows.sum())} steps")
    steps = loss.steps[rows]
    values, norms = (np.abs(t.values[rows].astype(np.float64)) for t in (loss, norm))
    signed = loss.values[rows].astype(np.float64)
    share = values / np.maximum(np.median(values[:BEGIN], axis=0), 1e-30)
    fade = norms / np.maximum([_largest(norms[:, i]) for i in (0, 1)], 1e-30)
    late = slice(-(len(steps) // 3), None)
    pace = _pace(run, loss.names)
    for winner, other in ((0, 1), (1, 0)):
        gone, rise = (float(np.median(part)) for part in (fade[late, winner], share[late, other]))
        rose = rise > lost and np.median(signed[late, other]) > 0
        over = gone < faded and (rose or np.median(fade[late, other]) < faded)
        faster = pace[winner] / pace[other] if rose and pace[other] > 0 else 0.0
        ways = (
            (won, over, {"gradient_share": gone}),
            (leaves, faster > outpaced, {"pace": faster}),
        )
        for limit, applies, facts in ways:
            since = _ahead(share[:, winner], limit)
            negative = (signed[late, winner] < -won).any()
            if applies and not negative and since is not None and steps[-1] - steps[since] >= persists:
                yield _told(run, loss.names, steps, since, winner, share, limit, facts)
                return


def _ahead(share: np.ndarray, limit: float) -> int | None:
    """The first position from which on nine of ten are below `limit`; None unless that is so of the last
    third, and of its median."""
    low, late = share < limit, share[-(len(share) // 3) :]
    if np.median(late) >= limit or low[-len(late) :].mean() < 0.9:
        return None
    return mostly_to_the_end(low)


def _pace(run: Run, names: Sequence[str]) -> list[float]:
    """Median of the update ratios of each side's matrices; 0 where they are not known."""
    if "update.ratio" not in run:
        return [0.0] * len(names)
    table = run.table("update.ratio")
    columns = ([i for i, n in enumerate(table.names) if n.startswith(f"{name}.")] for name in names)
    ratios = (table.values[:, chosen] for chosen in columns)
    return [float(np.nanmedian(part)) if np.isfinite(part).any() else 0.0 for part in ratios]


def _largest(norms: np.ndarray) -> float:
    """The largest of the medians of thirds of the first half, and of the first records."""
    parts = [norms[:BEGIN], *np.array_split(norms[: len(norms) // 2], 3)]
    return float(max(np.median(part) for part in parts))


def _told(
    run: Run,
    names: tuple[str, ...],
    steps: np.ndarray,
    since: int,
    winner: int,
    share: np.ndarray,
    limit: float,
    facts: dict[str, float],
) -> Finding:
    late = slice(-(len(steps) // 3), None)
    value, other = float(np.median(share[late, winner])), float(np.median(share[late, 1 - winner]))
    onset = int(steps[since])
    rates = _rates(run, onset)
    if "pace" in facts:
        how = f"leaves {names[1 - winner]} behind: its weights move {figure(facts['pace'])} times as fast"
        gradient = ""
    else:
        how, gradient = "has won", f", its gradient {figure(100 * facts['gradient_share'])} %"
    return Finding(
        severity=Severity.critical if value < CRUSHED else Severity.warning,
        confidence=0.85,
        sites=(names[winner], names[1 - winner]),
        onset_step=onset,
        peak_step=int(steps[since + int(np.argmin(share[since:, winner]))]),
        last_step=int(steps[-1]),
        message=f"{names[winner]} {how}; its loss is {figure(100 * value)} % of what it was{gradient}, "
        f"while the loss of {names[1 - winner]} is {figure(other)} times as large, since step {onset}.",
        value=value,
        threshold=limit,
        evidence=(Evidence("side.loss", names), Evidence("side.grad_norm", names, log=True)),
        facts={"loss_share": value, "other_loss": other, "winner": float(winner), **facts}
        | ({"lr_ratio": rates[winner] / rates[1 - winner], "lr": rates[1 - winner]} if rates else {}),
    )


def _rates(run: Run, step: int) -> tuple[float, ...]:
    """The learning rates of the two optimizers at a step; nothing where they are not known."""
    first = history(run, "run.lr").at(step)
    others = [site.name for site in run.sites("run") if site.name.endswith(".1.0")]
    second = history(run, "run.lr", others[0]).at(step) if others else None
    return (first, second) if first and second else ()


def _run(
    rng: np.random.Generator, loss: np.ndarray, norm: np.ndarray, ratio: np.ndarray | None = None
) -> Run:
    noise = np.exp(0.1 * rng.standard_normal(loss.shape))
    names = ("Discriminator", "Generator")
    sides = [Site("side", name, "Adam", order=i) for i, name in enumerate(names)]
    matrices = [Site("update", f"{name}.0.weight", "Linear", (64, 64)) for name in names]
    series = {"side.loss": loss * noise, "side.grad_norm": norm * noise}
    if ratio is not None:
        series["update.ratio"] = ratio
    steps = np.arange(0, 10 * len(loss), 10)
    return run_of(series, sites={"side": sides, "update": matrices}, steps={"side": steps, "update": steps})


def _paced(rng: np.random.Generator, loss: np.ndarray, ratios: tuple[float, float]) -> Run:
    return _run(rng, loss, np.full_like(loss, 0.6), np.tile(ratios, (len(loss), 1)))


@gan_imbalance.fires_on
def _the_discriminator_is_never_wrong(rng: np.random.Generator) -> Run:
    course = np.exp(-np.arange(60) / 6)
    loss = np.column_stack([1.39 * course + 1e-3, 0.7 + 6 * (1 - course)])
    return _run(rng, loss, np.column_stack([course + 5e-3, 0.2 + 1.5 * (1 - course)]))


@gan_imbalance.fires_on
def _the_generator_hardly_moves(rng: np.random.Generator) -> Run:
    course = np.linspace(0, 1, 60)
    return _paced(rng, np.column_stack([1.39 - 1.2 * course, 0.7 + 2 * course]), (3e-2, 1e-4))


@gan_imbalance.quiet_on
def _slower_and_holds_its_own(rng: np.random.Generator) -> Run:
    return _paced(rng, np.tile([1.2, 0.9], (60, 1)), (3e-2, 1e-4))


@gan_imbalance.quiet_on
def _a_critic_of_values_that_grow(rng: np.random.Generator) -> Run:
    course = np.exp(-np.arange(60) / 6)
    loss = np.column_stack([1.39 * course + 1e-3, 0.2 + 6 * (1 - course)])
    run = _run(rng, loss, np.column_stack([course + 5e-3, 0.2 + 1.5 * (1 - course)]))
    size = (0.2 + 2 * (1 - np.exp(-np.arange(600) / 300))) * np.exp(0.05 * rng.standard_normal(600))
    values = run_of({"targets.rms": size}, sites={"targets": [Site("targets", "mean-squared-error")]})
    return Run(run.info, {**run.kinds, **values.kinds}, run.events)


@gan_imbalance.quiet_on
def _balanced(rng: np.random.Generator) -> Run:
    return _run(rng, np.tile([1.2, 0.9], (60, 1)), np.tile([0.6, 0.9], (60, 1)))


@gan_imbalance.quiet_on
def _strong_but_still_teaching(rng: np.random.Generator) -> Run:
    course = np.exp(-np.arange(60) / 6)
    loss = np.column_stack([0.38 + 1.0 * course, 0.7 + 3 * (1 - course)])
    return _run(rng, loss, np.tile([1.5, 15.0], (60, 1)))


@gan_imbalance.quiet_on
def _ahead_with_a_gradient_that_does_not_fade(rng: np.random.Generator) -> Run:
    course = np.exp(-np.arange(60) / 6)
    loss = np.column_stack([1.39 * course + 0.02, 0.7 + 6 * (1 - course)])
    return _run(rng, loss, np.tile([0.6, 2.0], (60, 1)))
