"""A run that went wrong the way runs do, the diagnosis of it, and a browser to look at its page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from stabdiag.core.diagnosis import Diagnosis, FixAdvice, Incident, Skipped
from stabdiag.core.event import Event
from stabdiag.core.finding import CauseRanked, Evidence, Finding, Severity
from stabdiag.core.run import Run, RunInfo
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

HOSTILE = "<script>alert(1)</script>"
STEPS, ONSET, BROKEN = 2000, 1430, 1880

MODULES = [
    ("wte", "Embedding"),
    *[
        (f"blocks.{i}{part}", type_)
        for i in range(8)
        for part, type_ in (
            (".ln_1", "LayerNorm"),
            (".attn.qkv", "Linear"),
            (".attn", "CausalSelfAttention"),
            (".mlp.fc", "Linear"),
            (".mlp", "MLP"),
            ("", "Block"),
        )
    ],
    ("ln_f", "LayerNorm"),
    ("lm_head", "Linear"),
    (f"größe.{HOSTILE}", "Lineär<b>"),
]


def _growth(steps: np.ndarray) -> np.ndarray:
    return np.exp(np.clip((steps - ONSET) / 60.0, 0, 7))


def _column_per_site(rng: np.random.Generator, steps: np.ndarray, width: int, base: float) -> np.ndarray:
    depth = np.linspace(1, 3, width)
    noise = rng.lognormal(0, 0.15, (len(steps), width))
    values = base * depth * noise * _growth(steps)[:, None] ** np.linspace(0.2, 1, width)
    values[steps >= BROKEN] = np.nan
    return values


@pytest.fixture(scope="session")
def failed_run() -> Run:
    """2,000 steps of a small GPT: it diverges at step 1,430 and turns non-finite at step 1,880."""
    rng = np.random.default_rng(0)
    every = np.arange(STEPS)
    tenth = np.unique(np.concatenate([np.arange(5), np.arange(0, STEPS, 10)]))
    outputs = [
        Site("output", name, type_, (8, 256, 192), "float32", order=i, source="model.py:42")
        for i, (name, type_) in enumerate(MODULES)
    ]
    owners = [(i, m) for i, m in enumerate(MODULES) if m[1] not in ("Block", "CausalSelfAttention", "MLP")]
    parameters = {
        kind: [
            Site(kind, f"{name}.weight", type_, (192, 768), "float32", order=i, trainable=name != "wte")
            for i, (name, type_) in owners
        ]
        for kind in ("weight", "grad", "update")
    }
    loss = 1.6 + 9.2 * np.exp(-every / 220) + rng.normal(0, 0.05, STEPS) + 0.4 * (_growth(every) - 1)
    loss[700] = 14.0
    loss[BROKEN:] = np.nan
    lr = 3e-3 * np.minimum(every / 100, 0.55 + 0.45 * np.cos(np.pi * every / STEPS))
    broken = (every >= BROKEN).astype(float)
    grad_norm = rng.lognormal(0, 0.3, STEPS) * _growth(every)
    grad_norm[BROKEN:] = np.nan
    series: dict[str, Any] = {
        "run.loss": loss,
        "run.lr": lr,
        "run.grad_norm": grad_norm,
        "run.nonfinite": broken,
        "run.step_time": rng.lognormal(-3.5, 0.1, STEPS),
    }
    for name, base in (("absmax", 4.0), ("rms", 1.0), ("mean", 0.01), ("zeros", 1e-4)):
        series[f"output.{name}"] = _column_per_site(rng, tenth, len(outputs), base)
        series[f"output_grad.{name}"] = _column_per_site(rng, tenth, len(outputs), base * 1e-3)
    series["output.mean"] *= rng.choice([-1, 1], series["output.mean"].shape)
    width = len(owners)
    series["weight.norm"] = _column_per_site(rng, tenth, width, 12.0)
    series["grad.norm"] = _column_per_site(rng, every, width, 0.1)
    series["update.ratio"] = _column_per_site(rng, tenth, width, 1e-3)
    for kind, at in (
        ("output", tenth),
        ("output_grad", tenth),
        ("weight", tenth),
        ("grad", every),
        ("update", tenth),
    ):
        columns = width if kind in parameters else len(outputs)
        series[f"{kind}.nonfinite"] = np.repeat((at >= BROKEN).astype(float)[:, None], columns, axis=1)
    gradients = [Site("output_grad", s.name, s.module_type, s.shape, s.dtype, s.order) for s in outputs]
    return run_of(
        series,
        sites={"output": outputs, "output_grad": gradients, **parameters},
        steps=dict.fromkeys(("output", "output_grad", "weight", "update"), tenth),
        events=[
            Event("model", 0.0, data={"name": "GPT", "parameters": 3_613_440, "trainable": 3_600_000}),
            Event("coverage", 0.0, data={"what": "blocks.*.attn weights", "because": "attention ran fused"}),
            Event("coverage", 0.0, data={"what": HOSTILE, "because": f"a module called {HOSTILE}"}),
            Event("recorder-error", 3.0, 12, data={"probe": "output", "error": "RuntimeError: stride"}),
            Event("exit", 61.0, data={"exit_status": 1, "message": ""}),
            Event(
                "exception", 61.0, STEPS - 1, data={"type": "ValueError", "message": "the loss is not finite"}
            ),
        ],
        info=RunInfo(
            command=("python", "train.py", "--lr", "3e-3", HOSTILE),
            started=1_700_000_000.0,
            ended=1_700_000_061.2,
            exit_status=1,
            processes=2,
            host="node-1",
            versions={"python": "3.12.1", "torch": "2.13.0"},
            device="NVIDIA A100",
            git_commit="0123abc",
            configuration={"every": 10},
        ),
    )


def finding(signature: str, severity: Severity, sites: tuple[str, ...], onset: int, **more: Any) -> Finding:
    values: dict[str, Any] = {
        "severity": severity,
        "confidence": 0.9,
        "sites": sites,
        "onset_step": onset,
        "peak_step": onset + 20,
        "last_step": onset + 40,
        "message": f"{signature} was seen at {sites[0]}",
        "signature": signature,
    }
    return Finding(**{**values, **more})


@pytest.fixture(scope="session")
def failed_diagnosis() -> Diagnosis:
    """Two incidents, one of them with symptoms; one finding beside them; three signatures skipped."""
    deep = tuple(f"blocks.{i}.mlp" for i in (7, 6, 5, 4))
    cause = CauseRanked(
        "lr-too-high",
        0.83,
        "the update-to-weight ratio passed 1e-2 in 21 of 34 parameters, 40 steps before the loss rose, while "
        "the batches stayed in range",
    )
    findings = (
        finding(
            "activations-out-of-hand",
            Severity.critical,
            deep,
            ONSET,
            last_step=BROKEN - 1,
            peak_step=BROKEN - 10,
            message="The output of blocks.7.mlp grew 1,100-fold in 450 steps, and every block above with it.",
            value=3214.0,
            threshold=42.0,
            causes=(
                cause,
                CauseRanked("missing-normalisation", 0.12, "the residual stream is not normalised"),
            ),
            fixes=("lower-lr", "clip-gradients"),
            evidence=(Evidence("output.rms", deep, threshold=42.0, band=(1.0, 4.0), log=True),),
            facts={"growth": 1100.0},
        ),
        finding(
            "loss-divergence",
            Severity.critical,
            ("run",),
            ONSET + 25,
            last_step=BROKEN - 1,
            message="The loss rose from 1.62 to 440 within 400 steps and did not come back.",
            value=440.0,
            threshold=3.2,
            evidence=(Evidence("run.loss", ("run",), threshold=3.2, band=(1.5, 1.9)),),
        ),
        finding(
            "nonfinite",
            Severity.critical,
            ("blocks.0.ln_1",),
            BROKEN,
            message="The first NaN came out of blocks.0.ln_1 in the forward pass.",
            last_step=STEPS - 1,
            evidence=(Evidence("output.absmax", ("blocks.0.ln_1",)),),
        ),
        finding(
            "loss-spike",
            Severity.warning,
            (f"größe.{HOSTILE}",),
            700,
            peak_step=700,
            last_step=700,
            message=f"One batch cost 14.0, nine times its neighbours; {HOSTILE} & <b>größe</b>",
            value=14.0,
            threshold=2.4,
            causes=(CauseRanked("bad-batch", 0.64, "the batch of step 700 holds values up to 1e4"),),
            evidence=(Evidence("run.loss", ("run",), threshold=2.4),),
        ),
        finding("frozen-parameters", Severity.info, ("wte.weight",), 0, last_step=STEPS - 1, confidence=1.0),
    )
    fixes = (
        FixAdvice(
            "lower-lr",
            "Lower the learning rate",
            "lower the peak learning rate from 3e-3 to 9e-4, where the update ratio stays below 1e-3",
            "optimizer = torch.optim.AdamW(model.parameters(), lr=9e-4, betas=(0.9, 0.95))",
            {"lr_scale": 0.3},
        ),
        FixAdvice(
            "clip-gradients",
            "Clip the gradient",
            "clip the global gradient norm at 1.0 (its median while healthy was 0.97)",
            "torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)\noptimizer.step()",
        ),
    )
    return Diagnosis(
        verdict="failed",
        incidents=(
            Incident(Severity.critical, 0, (0, 1, 2), ONSET, cause, fixes),
            Incident(
                Severity.warning,
                3,
                (3,),
                700,
                findings[3].causes[0],
                (FixAdvice("drop-batch", "Drop the batch", f"leave out the batch {HOSTILE}", HOSTILE),),
            ),
        ),
        findings=findings,
        skipped=(
            Skipped(
                "attention-entropy-collapse", "attention.entropy was not recorded: no attention was found"
            ),
            Skipped("loss-scale-thrash", "run.loss_scale was not recorded: no gradient scaler is in use"),
            Skipped("overfitting", "run.validation_loss was not recorded"),
        ),
        run={
            "path": "stabdiag-runs/train-20261123-110142",
            "command": ["python", "train.py", "--lr", "3e-3", HOSTILE],
            "steps": STEPS,
            "duration_s": 61.2,
            "exit_status": 1,
            "signal": None,
            "world_size": 1,
            "overhead_percent": 1.74,
        },
    )


@pytest.fixture(scope="session")
def stable() -> Callable[[Run], Diagnosis]:
    """Makes the diagnosis of a run in which nothing was found."""

    def diagnosis_of(run: Run) -> Diagnosis:
        unknown = dict.fromkeys(("path", "duration_s", "exit_status", "signal", "overhead_percent"))
        block = {**unknown, "command": [], "steps": run.steps, "world_size": 1}
        return Diagnosis("stable", (), (), (), block)

    return diagnosis_of


NAN = float("nan")
ODD_RUNS = {
    "empty": run_of({}),
    "zero steps": run_of({"run.loss": np.zeros((0, 1)), "grad.norm": np.zeros((0, 3))}),
    "one step": run_of({"run.loss": [2.5], "output.rms": [[1.0, NAN]], "output.nonfinite": [[0.0, 1.0]]}),
    "no loss series": run_of({"grad.norm": np.ones((5, 2))}),
    "loss never measured": run_of({"run.loss": [NAN] * 4, "run.nonfinite": [NAN] * 4}),
    "loss only NaN": run_of({"run.loss": [NAN] * 4, "run.nonfinite": [1.0] * 4}),
    "constant loss": run_of({"run.loss": [1.0] * 4, "run.lr": [0.0] * 4}),
    "infinite loss": run_of({"run.loss": [1.0, float("inf"), 3.0]}),
}


@pytest.fixture(params=ODD_RUNS)
def odd_run(request: pytest.FixtureRequest) -> Run:
    return ODD_RUNS[request.param]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium of the machine; without one skips, or fails if STABDIAG_REQUIRE_BROWSER is set.

    It lives no longer than a file of tests: while it does, its event loop runs, and no other can then."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        reason = f"no Chromium on the machine (looked for {', '.join(names)})"
        if os.environ.get("STABDIAG_REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    switches = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-default-apps",
        "--disable-sync",
        "--no-first-run",
    ]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=switches)
        yield chromium
        chromium.close()
