"""What a diagnosis costs: 600 sites of every kind, each recorded at all of 10,000 steps.

    python benchmarks/analysis.py [SITES] [STEPS]

A run that stays healthy and one that diverges in its last tenth, in memory; CPU seconds of one thread, the
whole diagnosis first and then what each signature took of it. The last lines say what the live analysis of
the second run costs as it grows: a look, the seconds between looks, and the milliseconds of a core that this
takes of each second of training.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np

from stabdiag.analysis import diagnose as engine
from stabdiag.analysis.catalogue import SIGNATURES
from stabdiag.core.event import Event
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of
from stabdiag.launch.live import PERIOD, SHARE

LIMIT = 3.0
LIVE_LIMIT = 100
LAYER = ("Linear", "LayerNorm", "ReLU", "Linear", "Embedding", "Conv2d")
POSITIVE = {
    "output": ("absmax", "rms"),
    "output_grad": ("absmax", "rms", "norm"),
    "weight": ("norm", "absmax"),
    "grad": ("norm", "clipped_norm", "absmax"),
    "update": ("norm", "ratio"),
    "optimizer": ("rms", "step", "momentum"),
    "attention": ("entropy", "entropy_rest", "max_logit", "max_logit_upper"),
    "logits": ("log_z", "max", "entropy"),
    "router": ("max_load", "min_load", "entropy"),
    "distribution": ("q001", "q01", "q50", "q99", "q999", "kurtosis"),
    "replica": ("fingerprint",),
}
SHARES = {
    "output": ("zeros",),
    "grad": ("dead",),
    "optimizer": ("eps_share", "cosine"),
    "attention": ("entropy_ratio", "exact"),
    "router": ("load",),
    "distribution": ("outliers", "underflow_fp16", "overflow_fp16"),
    "replica": ("differs",),
}
SIGNED = {"output": ("min", "max", "mean"), "logits": ("mean",)}
ONE = ("logits",)


def places(kind: str, count: int) -> list[Site]:
    parameter = kind in ("weight", "grad", "update", "optimizer", "replica")
    suffix = ".weight" if parameter else ""
    shape = (64, 64) if parameter else (8, 64)
    return [
        Site(kind, f"layers.{i}{suffix}", LAYER[i % len(LAYER)], shape, "float32", i, source=f"model.py:{i}")
        for i in range(1 if kind in ONE else count)
    ]


def recorded(sites: int, steps: int, *, diverges: bool) -> Run:
    """Log-normal noise everywhere; where it diverges, everything grows in the last tenth."""
    noise = np.random.default_rng(0)
    onset = steps * 9 // 10
    growth = np.exp(np.maximum(np.arange(steps) - onset, 0) / 50.0 if diverges else np.zeros(steps))
    growth = np.minimum(growth, 1e6).astype(np.float32)
    series, named = {}, {}
    for kind in POSITIVE:
        named[kind] = places(kind, sites)
        shape = (steps, len(named[kind]))
        for name in POSITIVE[kind]:
            base = np.exp(0.2 * noise.standard_normal(shape, dtype=np.float32))
            series[f"{kind}.{name}"] = (0.01 if name == "ratio" else 1.0) * base * growth[:, None]
        for name in SHARES.get(kind, ()):
            series[f"{kind}.{name}"] = 0.1 * noise.random(shape, dtype=np.float32)
        for name in SIGNED.get(kind, ()):
            series[f"{kind}.{name}"] = noise.standard_normal(shape, dtype=np.float32)
        series[f"{kind}.nonfinite"] = np.zeros(shape, np.float32)
    at = np.arange(steps)
    series["run.loss"] = 2.0 + 3.0 * np.exp(-at / (steps / 10)) + 0.05 * noise.standard_normal(steps)
    series["run.loss"] += np.log(growth)
    series["run.lr"] = 3e-4 * np.minimum(at / 100, 0.55 + 0.45 * np.cos(np.pi * at / steps))
    series["run.grad_norm"] = np.exp(0.3 * noise.standard_normal(steps)) * growth
    series["run.clipped_grad_norm"] = np.minimum(series["run.grad_norm"], 1.0)
    series["run.nonfinite"] = np.zeros(steps)
    series["run.skipped"] = np.zeros(steps)
    series["run.loss_scale"] = np.full(steps, 65536.0)
    series["run.samples"] = np.full(steps, 64.0)
    series["run.tokens"] = np.full(steps, 16384.0)
    series["run.step_time"] = np.exp(-3.0 + 0.1 * noise.standard_normal(steps))
    series["run.resident"] = 1e3 + noise.random(steps)
    series["run.memory"] = 1e3 + noise.random(steps)
    series["run.grad_carryover"] = np.zeros(steps)
    group = {"lr": 3e-4, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.1}
    events = [
        Event("model", 0.0, data={"name": "Model", "parameters": sites * 4096, "modules": sites}),
        Event("optimizer", 0.0, data={"name": "AdamW", "groups": [group]}),
        Event("loss", 0.0, data={"function": "cross-entropy", "classes": 1000}),
    ]
    return run_of(series, sites=named, events=events)


def again(run: Run) -> Run:
    """The same arrays in a run that remembers nothing of a diagnosis before."""
    return Run(run.info, run.kinds, run.events)


def seconds(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


def told(name: str, run: Run) -> float:
    whole = min(seconds(lambda: engine.diagnose(again(run))) for _ in range(3))
    fresh = again(run)
    with np.errstate(all="ignore"):
        each = {s.id: seconds(lambda s=s: engine.evaluate(s, fresh, {})) for s in SIGNATURES}
    alone = sorted(each.items(), key=lambda pair: -pair[1])
    print(f"{name}: {whole:.2f} s for {len(each)} signatures, {LIMIT:g} s allowed")
    print("  " + ", ".join(f"{id} {1000 * cost:.0f} ms" for id, cost in alone[:12]))
    return whole


def live(run: Run) -> None:
    for share in (100, 10, 2, 1):
        part = run.window(0, run.steps // share - 1)
        look = seconds(lambda part=part: engine.diagnose(part))
        pause = max(PERIOD, look / SHARE)
        spent = f"{1000 * look / (pause + look):.0f} ms a second, {LIVE_LIMIT} ms allowed"
        print(f"live at step {part.steps}: {1000 * look:.0f} ms a look, {pause:.1f} s between, {spent}")


def main(sites: int = 600, steps: int = 10_000) -> None:
    print(f"{sites} sites of each kind, {steps} recorded steps")
    for name, diverges in (("healthy", False), ("diverging", True)):
        run = recorded(sites, steps, diverges=diverges)
        told(name, run)
    live(run)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
