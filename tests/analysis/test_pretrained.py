"""Weights that were trained before the run began, and what nobody may do to them."""

from __future__ import annotations

import ast
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from stabdiag.analysis.catalogue import CAUSES, FIXES
from stabdiag.analysis.diagnose import diagnose
from stabdiag.analysis.draws import is_draw
from stabdiag.analysis.pretrained import pretrained
from stabdiag.core.event import Event
from stabdiag.core.finding import Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

torch.set_num_threads(1)

INITIALIZATIONS = {
    "PyTorch's own": lambda weight: nn.init.kaiming_uniform_(weight, a=5**0.5),
    "Xavier": nn.init.xavier_uniform_,
    "He": nn.init.kaiming_normal_,
    "orthogonal": nn.init.orthogonal_,
    "cut at two deviations": lambda weight: nn.init.trunc_normal_(weight, std=0.02, a=-0.04, b=0.04),
    "cut at two, whatever the deviation": lambda weight: nn.init.trunc_normal_(weight, std=0.02),
    "a hundred times too wide": lambda weight: nn.init.normal_(weight, std=100.0),
}
CLASSES = Event("loss", 0.0, data={"function": "cross-entropy", "classes": 16})
FINDING = Finding(Severity.warning, 0.9, ("run",), 0, 0, 9, "It did.")


@pytest.mark.parametrize("shape", [(64, 1024), (32, 32), (1024, 256), (24, 16, 3, 3)], ids=str)
@pytest.mark.parametrize("initialize", INITIALIZATIONS.values(), ids=INITIALIZATIONS)
def test_what_an_initialization_draws_is_a_draw(initialize, shape):
    torch.manual_seed(0)
    for _ in range(20):
        weight = torch.empty(shape)
        initialize(weight)
        assert is_draw(float(weight.abs().max() / weight.square().mean().sqrt()), weight.numel())


def network(trained: int = 0) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(32, 64),
        nn.ReLU(),
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Linear(64, 16),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(trained):
        x = torch.randn(64, 32)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long() + 2 * (x[:, 1] * x[:, 2] > 0)).backward()
        optimizer.step()
    return model


def begun(model: nn.Module, loss: float = 9.0, **more) -> Run:
    """A run that begins with `model` and that loss; one second of steps is enough."""
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    named = [(name, p.detach(), p.requires_grad) for name, p in model.named_parameters()]
    sites = [
        Site("initial", n, kinds[n.rpartition(".")[0]], tuple(p.shape), order=i, trainable=t)
        for i, (n, p, t) in enumerate(named)
    ]
    weights = [p for _, p, _ in named]
    series = {
        "run.loss": 1.0 + (loss - 1.0) * np.exp(-np.arange(100) / 20),
        "initial.absmax": [[float(w.abs().max()) for w in weights]],
        "initial.rms": [[float(w.square().mean().sqrt()) for w in weights]],
        "initial.zeros": [[float((w == 0).float().mean()) for w in weights]],
        "initial.nonfinite": np.zeros((1, len(weights))),
        **more,
    }
    return run_of(series, sites={"initial": sites}, events=[CLASSES])


def signatures(run: Run) -> set[str]:
    return {finding.signature for finding in diagnose(run).findings}


def test_matrices_that_no_initialization_draws_were_trained_before():
    assert pretrained(begun(network())) is None
    assert "no initialization draws what 4 of its 4 matrices" in pretrained(begun(network(trained=400)))


def test_weights_that_were_never_written_to_were_not_trained_before():
    model = network(trained=400)
    with torch.no_grad():
        model[0].weight[0, 0] = 1e30
    assert pretrained(begun(model)) is None


def test_a_loaded_model_that_is_wrong_about_other_labels_has_no_bad_initialization():
    assert "bad-initialization" in signatures(begun(network()))
    assert "bad-initialization" not in signatures(begun(network(trained=400)))


def test_a_new_head_that_begins_too_wide_on_a_loaded_model_is_told_and_is_all_that_is_drawn_again():
    model = network(trained=400)
    model[0].requires_grad_(False)
    model[6] = nn.Linear(64, 16)
    nn.init.normal_(model[6].weight, std=3.0)
    with torch.no_grad():
        model[2].weight.mul_(100)  # was trained, at whatever scale
    diagnosis = diagnose(begun(model))
    (found,) = (f for f in diagnosis.findings if f.signature == "bad-initialization")
    assert found.sites == ("6",)
    change = FIXES["rescale-init"].propose(begun(model), found)
    assert "['6']" in change.code


def test_nothing_that_was_trained_before_is_drawn_again():
    run = begun(network(trained=400))
    assert CAUSES["bad-init-scale"].weigh(run, FINDING) is None
    assert FIXES["rescale-init"].propose(run, FINDING) is None


def test_what_a_checkpoint_did_not_hold_is_initialized_and_nothing_else():
    model = network(trained=400)
    with torch.no_grad():
        model[2].weight.fill_(1e30)
    run = begun(model, **{"normalization.gain": np.full((1, 2), 1.2)})
    change = FIXES["rescale-init"].propose(run, FINDING)
    assert "['2']" in change.code
    assert "modules()" not in change.code


def test_frozen_weights_are_not_drawn_again():
    model = network()
    model[0].requires_grad_(False)
    assert "requires_grad" in FIXES["rescale-init"].propose(begun(model), FINDING).code
    with torch.no_grad():
        model[0].weight.mul_(100)
    assert FIXES["rescale-init"].propose(begun(model), FINDING) is None


def test_gains_that_were_drawn_at_random_come_with_shifts_of_zero():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16))
    nn.init.normal_(model[1].weight, 1.0, 0.02)
    gain = model[1].weight.detach()
    spread = float(gain.abs().max() / gain.square().mean().sqrt())
    gains = {"normalization.gain": [[spread]]}
    for shift, told in ((0.0, None), (0.01, "gains")):
        nn.init.constant_(model[1].bias, shift)
        run = begun(model, **gains)
        found = pretrained(_named(run, "1"))
        assert (found is None) if told is None else (told in found)


def _named(run: Run, layer: str) -> Run:
    """`run` with its only normalization layer called `layer`."""
    gain = run.table("normalization.gain").values
    other = run_of({"normalization.gain": gain}, sites={"normalization": [layer]})
    return Run(run.info, {**run.kinds, **other.kinds}, run.events)


SHAPES = {"down": (8, 64), "up": (64, 8), "gate": (8, 64), "weight": (16, 64)}


def adapters(*zeros: str) -> Run:
    """Two low-rank products beside six other matrices. Those called as in `zeros` begin at zero; factors get
    no gradient where both do."""
    names = [f"{i}.{name}" for i in range(8) for name in (("up", "down") if i < 2 else ("weight",))]
    names[-1] = "7.gate"
    sites = {
        kind: [
            Site(kind, name, "Linear", SHAPES[name.rpartition(".")[2]], order=i)
            for i, name in enumerate(names)
        ]
        for kind in ("initial", "grad")
    }
    zero = np.array([name.rpartition(".")[2] in zeros for name in names])
    stuck = zero & (np.char.find(names, "gate") < 0) & ("down" in zeros)
    begun = {f"initial.{what}": np.where(zero, 0.0, 0.1)[None] for what in ("rms", "absmax")}
    series = {
        **begun,
        "initial.nonfinite": np.zeros((1, 10)),
        "initial.zeros": zero[None],
        "run.loss": np.full(50, 1.4),
        "grad.norm": np.tile(np.where(stuck, 0.0, 1.0), (50, 1)),
        "grad.nonfinite": np.zeros((50, 10)),
    }
    return run_of(series, sites=sites)


def unreachable(run: Run) -> Finding | None:
    return next((f for f in diagnose(run).findings if f.signature == "unreachable-parameters"), None)


def test_two_factors_of_zero_are_stuck_and_one_of_them_is_drawn_again():
    run = adapters("down", "up", "gate")
    found = unreachable(run)
    assert found.severity is Severity.warning
    assert found.causes[0].id == "bad-init-scale"
    code = FIXES["rescale-init"].propose(run, found).code
    ast.parse(code)
    assert "['0.down', '1.down']" in code


def test_one_factor_of_zero_is_meant():
    assert unreachable(adapters("up")) is None


def contrastive(rows: int, samples: int = 24) -> Run:
    """A loss that tells `samples` apart, and starts at 9, of a model whose only matrix has that many rows."""
    sites = {
        "initial": [Site("initial", "tower.weight", "Linear", (rows, 48))],
        "output": [
            Site("output", "tower", "Linear", (24, rows), order=0),
            Site("output", "Pair", "Pair", order=1),
        ],
        "logits": [Site("logits", "Pair")],
    }
    series = {
        "run.loss": 1.0 + 8.0 * np.exp(-np.arange(100) / 20),
        "run.samples": np.full(100, 24.0),
        "initial.rms": [[0.1]],
        "logits.max": np.ones((1, 1)),
        "output.rms": np.ones((1, 2)),
    }
    told = Event("loss", 0.0, data={"function": "cross-entropy", "classes": samples})
    return run_of(series, sites=sites, events=[told])


@pytest.mark.parametrize(("rows", "classes"), [(48, 24), (48, 4097), (24, 24)])
def test_similarities_between_samples_have_the_scale_of_a_temperature(rows, classes):
    run = contrastive(rows, classes)
    assert not {"bad-initialization"} & signatures(run)
    assert CAUSES["bad-init-scale"].weigh(run, FINDING) is None


def test_classes_that_have_weights_of_their_own_are_no_similarities():
    assert "bad-initialization" in signatures(contrastive(rows=96, samples=96))


def test_tokens_alike_in_a_loaded_model_speak_of_no_missing_connections():
    spread = np.array([[1.0, 0.9, 0.1, 0.02]])
    alike = replace(FINDING, signature="rank-collapse")
    for uneven, missing in ((1.0, True), (1.2, False)):
        series = {
            "tokens.spread": spread,
            "normalization.gain": np.full((1, 2), uneven),
            "run.loss": np.ones(9),
        }
        assert (CAUSES["missing-residual"].weigh(run_of(series), alike) is not None) is missing
