"""Every recorded kind is in the report, with its units, and none that was not recorded."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.run import Run, RunInfo
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of
from stabdiag.render.dashboard import dashboards, load_dashboard
from stabdiag.render.heatmap import heat_maps
from stabdiag.render.kind import axis_unit, unit_of, with_unit
from stabdiag.render.page import render_page, write_page
from stabdiag.render.sections import shown_sections
from stabdiag.render.statistics import statistics

STEPS, LAYERS, HEADS = 1000, 6, 6
NAN = float("nan")
Verdict = Callable[[Run], Diagnosis]


def _sites() -> dict[str, list[Any]]:
    layers = [f"blocks.{i}" for i in range(LAYERS)]
    attention = [
        name for layer in layers for name in (f"{layer}.attn", *(f"{layer}.attn[h{h}]" for h in range(HEADS)))
    ]
    parameters = [f"{layer}.{part}.weight" for layer in layers for part in ("ln_1", "attn.qkv", "mlp.fc")]
    modules = [f"{layer}.{part}" for layer in layers for part in ("ln_1", "attn", "mlp")]
    return {
        "attention": [Site("attention", name, order=i) for i, name in enumerate(attention)],
        "optimizer": [Site("optimizer", name, order=i) for i, name in enumerate(parameters)],
        "replica": [Site("replica", name, order=i) for i, name in enumerate(parameters)],
        "distribution": [Site("distribution", name, order=i) for i, name in enumerate(modules)],
        "distribution_grad": [Site("distribution_grad", name, order=i) for i, name in enumerate(modules)],
        "output": [Site("output", name, order=i) for i, name in enumerate(modules)],
        "router": [Site("router", f"{layer}.router", order=i) for i, layer in enumerate(layers[:3])],
        "rank": [f"rank-{i}" for i in range(4)],
        "batch": ["input_ids"],
        "logits": ["lm_head"],
        "curvature": ["run"],
    }


def _walk(rng: np.random.Generator, shape: tuple[int, ...], level: float, spread: float = 0.02) -> Any:
    """Positive values that drift around `level`."""
    return level * np.exp(np.cumsum(rng.normal(0, spread, shape), axis=0))


def _everything() -> Run:
    """All kinds at once: fast at every step, standard at every tenth, distributions and curvature rarely."""
    rng = np.random.default_rng(1)
    sites = _sites()
    standard, slow, rare = (np.arange(0, STEPS, k) for k in (10, 50, 100))
    at = {
        **dict.fromkeys(("attention", "logits", "optimizer", "router", "output", "novel"), standard),
        **dict.fromkeys(("distribution", "distribution_grad"), slow),
        "curvature": rare,
    }
    series: dict[str, Any] = {}

    def add(kind: str, name: str, level: float, spread: float = 0.02) -> None:
        length = len(at.get(kind, range(STEPS)))
        series[f"{kind}.{name}"] = _walk(rng, (length, len(sites.get(kind, "x"))), level, spread)

    for name, level in (("entropy", 2.8), ("entropy_rest", 2.5), ("max_logit", 6), ("max_logit_upper", 8)):
        add("attention", name, level, 0.05)
    series["attention.entropy_ratio"] = np.clip(series["attention.entropy"] / 5.5, 0, 1)
    series["attention.exact"] = np.ones_like(series["attention.entropy"])
    for name, level in (("log_z", 10.2), ("mean", 0.1), ("max", 14), ("entropy", 3.1)):
        add("logits", name, level, 0.01)
    for name, level in (("rms", 0.9), ("step", 0.4), ("cosine", 0.3)):
        add("optimizer", name, level)
    series["optimizer.eps_share"] = np.clip(_walk(rng, (len(standard), len(sites["optimizer"])), 1e-3), 0, 1)
    add("curvature", "lambda_max", 30, 0.3)
    series["curvature.limit"] = 38 / (3e-4 * np.linspace(1, 0.5, len(rare)))
    series["curvature.lambda_max_preconditioned"] = series["curvature.limit"][:, None] * np.linspace(
        0.05, 1.2, len(rare)
    ).reshape(-1, 1)
    series["curvature.sharpness_ratio"] = np.linspace(0.05, 1.2, len(rare))
    series["curvature.lambda_min"] = -series["curvature.lambda_max"] / 8
    series["curvature.trace"], series["curvature.residual"] = np.full((2, len(rare)), [[900.0], [0.01]])
    for kind in ("distribution", "distribution_grad"):
        for name, level in (("q01", 0.01), ("q50", 0.4), ("q99", 3.0), ("kurtosis", 4.0), ("outliers", 1e-3)):
            add(kind, name, level, 0.1)
        for name in ("fp16", "bf16", "e4m3", "e5m2"):
            add(kind, f"underflow_{name}", 2e-3, 0.3)
            series[f"{kind}.overflow_{name}"] = np.zeros((len(slow), len(sites[kind])))
    series["replica.fingerprint"] = rng.integers(0, 2**24, (STEPS, len(sites["replica"])))
    for name, level in (
        ("step_time", 0.08),
        ("data_time", 0.01),
        ("loss", 2.5),
        ("grad_norm", 1.1),
        ("memory", 900),
    ):
        add("rank", name, level, 0.01)
    series["router.entropy"] = _walk(rng, (len(standard), 3), 1.9)
    series["router.max_load"] = _walk(rng, (len(standard), 3), 0.2)
    add("batch", "absmax", 3.0)
    add("output", "rms", 1.0)
    add("novel", "wobble", 1.0)
    run = {"data": 0.004, "forward": 0.02, "backward": 0.045, "optimizer": 0.008}
    for name, level in run.items():
        series[f"run.{name}_time"] = level * rng.lognormal(0, 0.1, STEPS)
    series["run.forward_time"][0] += 3.0
    tier = np.ones(STEPS)
    tier[standard], tier[slow], tier[rare] = 2, 3, 4
    series["run.tier"] = tier
    series["run.overhead"] = 0.0004 * np.where(tier > 1, 8, 1)
    series["run.step_time"] = 0.003 + sum(series[f"run.{name}_time"] for name in run)
    series["run.memory"], series["run.reserved"] = _walk(rng, (2, STEPS, 1), 1200, 0.0005)
    series["run.resident"] = np.full(STEPS, 2100.0)
    series["run.loss"] = 2 + 8 * np.exp(-np.arange(STEPS) / 150)
    series["run.lr"] = np.full(STEPS, 3e-4)
    series["run.grad_norm"] = rng.lognormal(0, 0.3, STEPS)
    series["run.clipped_grad_norm"] = np.minimum(series["run.grad_norm"], 1)
    info = RunInfo(
        command=("python", "train.py"), processes=4, configuration={"budget": 0.02, "every": None, "seed": 7}
    )
    return run_of(series, sites=sites, steps=at, info=info)


@pytest.fixture(scope="module")
def run() -> Run:
    return _everything()


@pytest.fixture(scope="module")
def page(run: Run, stable: Verdict) -> str:
    diagnosis = stable(run)
    return render_page(run, replace(diagnosis, run={**diagnosis.run, "overhead_percent": 0.83}))


def _section(page: str, name: str) -> str:
    found = re.search(rf'<section id="section-{name}".*?</section>', page, re.DOTALL)
    assert found, name
    return found[0]


def _titles(run: Run, name: str = "health") -> list[str]:
    return [section.title for section in shown_sections(run, load_dashboard(name))]


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("attention", ["ln(keys", "Largest logit", "blocks.0.attn[h"]),
        ("data", ["Largest magnitude of the inputs", "input_ids"]),
        ("curvature", ["dashed: stability limit", "lambda_max_preconditioned", "diverges where"]),
        ("precision", ["fp16 underflow", "e5m2 overflow", "bf16 underflow", "0.2"]),
        ("logits-of-the-prediction", ["log Z (nats)", "Entropy of the prediction (nats)"]),
        ("novel", ["Novel", "novel.wobble"]),
        ("optimizer", ["RMS of gradient over √v̂", "Share of coordinates", "after clipping"]),
        ("ranks", ["rank-0", "rank-3", "rank.data_time (s)", "rank.memory (MiB)"]),
        ("replicas", ["Fingerprint"]),
        ("routers", ["router.entropy (nats)", "router.max_load (share of choices)"]),
        ("time-and-memory", ["Time of a step (s)", "backward", "recorder", "Memory (MiB)", "resident"]),
    ],
)
def test_each_kind_has_a_section_that_reads_without_a_script(
    page: str, section: str, told: list[str]
) -> None:
    found = _section(page, section)
    for words in told:
        assert words in found, words
    assert '<svg class="chart"' in found


def test_every_measured_series_of_every_kind_is_named_on_the_page(run: Run, page: str) -> None:
    mapped = {drawn.series for drawn in heat_maps(run, run.series, 500_000)}
    for series in run.series:
        if not series.startswith("run."):
            assert series in mapped, series
        assert f'<td class="site">{series}</td>' in page or series.endswith(".nonfinite"), series


def test_no_unit_is_missing_where_a_kind_is_known(run: Run) -> None:
    assert [one.series for one in statistics(run) if not one.unit] == ["novel.wobble"]


def test_an_axis_has_a_unit_only_where_there_is_one() -> None:
    assert with_unit("attention.entropy") == "attention.entropy (nats)"
    assert with_unit("output.rms") == "output.rms"
    assert unit_of("output.rms") == "as the tensor"
    assert axis_unit("output.rms") == axis_unit("novel.wobble") == ""


def test_a_run_without_a_kind_has_no_panel_for_it(run: Run, stable: Verdict) -> None:
    for kind, title in (("attention", "Attention"), ("router", "Routers"), ("curvature", "Curvature")):
        assert title in _titles(run)
        rest = replace(run, kinds={name: data for name, data in run.kinds.items() if name != kind})
        assert title not in _titles(rest)
    only = replace(run, kinds={"output": run.kinds["output"]})
    assert "section-time-and-memory" not in render_page(only, stable(only), "cdn")


def test_a_kind_that_was_looked_for_and_never_measured_has_no_section() -> None:
    never = np.full((3, 2), NAN)
    run = run_of({"attention.entropy": never, "attention.nonfinite": never, "curvature.limit": [[NAN]]})
    assert {"Attention", "Curvature"}.isdisjoint(_titles(run))
    assert statistics(run) == []


def test_each_dashboard_draws_its_own_sections_and_no_other(run: Run, stable: Verdict) -> None:
    for name in dashboards():
        page = render_page(run, stable(run), "cdn", load_dashboard(name))
        told = re.findall(r'<h2 id="[^"]+">([^<]+)</h2>', page)
        if name != "health":
            assert told == [section.title for section in load_dashboard(name).sections]
        assert "<h1>Stable: " in page


def test_a_dashboard_without_the_table_of_layers_has_no_link_into_it(run: Run, stable: Verdict) -> None:
    page = render_page(run, stable(run), "cdn", load_dashboard("attention"))
    assert "#layer-" not in page
    assert 'id="heat-series"' not in page
    assert 'data-map="attention.max_logit"' in page


def test_any_run_can_be_shown_by_any_dashboard(odd_run: Run, stable: Verdict) -> None:
    for name in dashboards():
        assert "<h1>" in render_page(odd_run, stable(odd_run), "cdn", load_dashboard(name))


def test_a_kind_with_a_part_of_its_statistics_is_drawn() -> None:
    full = _everything()
    for kind, data in full.kinds.items():
        for name, values in data.values.items():
            part = replace(full, kinds={kind: replace(data, values={name: values})})
            assert [one.series for one in statistics(part)] == [f"{kind}.{name}"]
            shown_sections(part, load_dashboard())


def test_a_sites_part_leads_to_its_module(page: str, run: Run) -> None:
    assert 'href="#layer-blocks-0-attn">blocks.0.attn' in page
    assert re.search(r'\["blocks\.0\.attn\[h3\]","layer-|\["blocks\.0\.attn\[h3\]","blocks-0-attn"\]', page)


def test_the_page_of_all_kinds_keeps_to_three_megabytes_and_is_deterministic(
    page: str, run: Run, stable: Verdict
) -> None:
    assert len(page.encode()) <= 3_000_000
    assert render_page(run, stable(run), "cdn") == render_page(run, stable(run), "cdn")


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_maps_and_charts_of_the_instruments_are_drawn_without_a_complaint(
    browser: Any, tmp_path: Any, run: Run, stable: Verdict, scheme: str
) -> None:
    write_page(run, stable(run), tmp_path / "report.html")
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    shown = context.new_page()
    complaints: list[str] = []
    shown.on("console", lambda message: complaints.append(message.text))
    shown.on("pageerror", lambda error: complaints.append(str(error)))
    shown.goto((tmp_path / "report.html").as_uri())
    for name, layer in (("attention", "heatmaplayer image"), ("curvature", "scatterlayer .trace")):
        shown.locator(f"#section-{name} figure").first.scroll_into_view_if_needed()
        shown.wait_for_selector(f"#section-{name} .{layer}", state="attached", timeout=20_000)
    assert complaints == []
    context.close()
