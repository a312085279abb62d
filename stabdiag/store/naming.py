"""The names that other tools give to what stabdiag calls `run.loss`, `run.lr`, `evaluation.loss`, …"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache

from stabdiag.core.errors import StabdiagError, UnknownName
from stabdiag.store.importer import Names

TOLD = 8
"""Names that are told one by one."""
TRAINING = frozenset({"train", "training", "trainer", "trn"})
EVALUATION = frozenset(
    {"eval", "evaluation", "val", "valid", "validation", "dev", "test", "testing", "heldout", "holdout"}
)
AROUND = frozenset(
    {
        *("step", "epoch", "iter", "iteration", "iterations", "batch", "per"),
        *("global", "avg", "average", "mean", "total", "running"),
        *("metric", "metrics", "losses", "optim", "optimizer", "optimization", "scalars", "log", "logs"),
    }
)
"""Words that say how a number was taken or filed, not what it is."""

LOSSES = (
    "loss", "lm loss", "mlm loss", "cross entropy", "cross entropy loss", "crossentropyloss", "ce", "ce loss",
    "nll", "nll loss", "cost", "objective",
)  # fmt: skip
GRADIENT_NORMS = ("grad norm", "gradnorm", "gradient norm", "gradients norm", "grad norm 2 0", "grad norm l2")
CLIPPED = ("clipped grad norm", "grad norm after clipping", "grad norm after clip", "clipped gradient norm")
RATES = ("lr", "learning rate", "learningrate")
SCALES = ("loss scale", "grad scale", "grad scaler scale", "amp scale", "scaler scale")
STEP_TIMES = (
    "step time",
    "step time s",
    "iteration time",
    "time per step",
    "seconds per step",
    "sec per step",
)

GROUP = re.compile(
    r"(pg|group|param|parameter)?\d*|adam|adamw|adamax|nadam|radam|sgd|lion|muon|adafactor|rmsprop|adagrad|lamb"
)
"""Words that tell the parameter groups of a learning rate apart."""


def _of(series: str, phrases: tuple[str, ...]) -> dict[frozenset[str], str]:
    return {frozenset(phrase.split()): series for phrase in phrases}


KNOWN = {
    **_of("run.loss", LOSSES),
    **_of("run.grad_norm", GRADIENT_NORMS),
    **_of("run.clipped_grad_norm", CLIPPED),
    **_of("run.lr", RATES),
    **_of("run.loss_scale", SCALES),
}
WHOLE = _of("run.step_time", STEP_TIMES)
"""Names of which every word counts: a `step` may tell a time of steps from the time of day."""

EVALUATED = {"run.loss": "evaluation.loss"}

OURS = (
    *dict.fromkeys(KNOWN.values()),
    *("run.step_time", "run.data_time", "run.memory", "run.resident", "run.skipped", "run.samples"),
    *("run.tokens", "run.grad_cosine", "evaluation.loss", "evaluation.agreement", "side.loss"),
    *("side.grad_norm", "grad.norm", "weight.norm", "update.ratio", "latent.kl", "attention.entropy"),
    *("attention.max_logit", "logits.log_z", "router.load"),
)
"""Series that a number of another tool can stand for."""


def role_of(folder: str, *, alone: bool = False) -> str:
    """`training` or `evaluation` where a folder of this name holds that part of a log: by its last word, by
    the whole of it with `alone`. Empty for any other."""
    words = _words(folder)
    if not words or (alone and len(words) > 1):
        return ""
    return "training" if words[-1] in TRAINING else "evaluation" if words[-1] in EVALUATION else ""


@cache
def series_of(name: str) -> str | None:
    """The series that a name means by its words: `train/grad_norm`, `Loss/validation`, `lr-AdamW/pg1`."""
    ours = name.replace("/", ".", 1)
    if ours in OURS:  # as we write it ourselves for TensorBoard
        return ours
    words = frozenset(_words(name))
    if words - TRAINING in WHOLE:
        return WHOLE[words - TRAINING]
    training, evaluation = bool(words & TRAINING), bool(words & EVALUATION)
    kept = words - AROUND - TRAINING - EVALUATION
    series = KNOWN.get(kept) or KNOWN.get(words - TRAINING - EVALUATION)
    if series is None and frozenset(w for w in kept if not GROUP.fullmatch(w)) in _of("run.lr", RATES):
        series = "run.lr"
    if series is None or (training and evaluation):
        return None
    return EVALUATED.get(series) if evaluation else series


def knows(name: str) -> bool:
    """Whether a number of that name shows that a table is the log of a training."""
    return series_of(name) is not None


def parse_names(pairs: tuple[str, ...]) -> dict[str, str]:
    """`theirs=ours` pairs, with `run.` where ours has no kind. StabdiagError for what is none, or what no
    series is called."""
    names = {}
    for pair in pairs:
        theirs, equals, ours = pair.rpartition("=")
        if not (equals and theirs and ours.strip()):
            raise StabdiagError(
                f"a name is mapped as theirs=ours, not {pair!r}", "for example: --map training/cost=run.loss"
            )
        series = ours.strip() if "." in ours else f"run.{ours.strip()}"
        if series not in OURS:
            raise UnknownName("series", series, OURS)
        names[theirs] = series
    return names


def chosen(names: Names, present: dict[str, int]) -> dict[str, list[str]]:
    """Series -> the names that stand for it, of those `present` (with the number of their values).

    What is mapped by hand comes first. A series of kind `run` has one: that of most values, such as the loss
    of every step and not of every epoch; of equals the shortest. Each evaluated data set is a site of its
    own, the validation's before the test's. StabdiagError where a name that was mapped by hand is not there.
    """
    for theirs in names:
        if theirs not in present:
            raise StabdiagError(f"the log has no number {theirs!r}", f"it has {listed(present)}")
    found: dict[str, list[str]] = {}
    for name in present:
        series = names.get(name) or series_of(name)
        if series is not None:
            found.setdefault(series, []).append(name)
    for series, candidates in found.items():
        by_hand = [name for name in candidates if name in names]
        if series.startswith("run."):
            best = by_hand or sorted(candidates, key=lambda name: (-present[name], len(name), name))
            found[series] = best[:1]
        else:
            tested = sorted(candidates, key=lambda name: ("test" in _words(name), name))
            found[series] = by_hand or tested
    return found


def listed(names: Collection[str]) -> str:
    """`loss, lr and 12 more`, each at a length that a line can take."""
    shown = [name if len(name) <= 60 else f"{name[:57]}..." for name in list(names)[:TOLD]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")


def _words(name: str) -> list[str]:
    parted = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", name[:300])
    return [word for word in re.split(r"[^a-z0-9]+", parted.lower()) if word]
