from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.errors import StabdiagError
from stabdiag.core.run import Run, RunInfo
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of
from stabdiag.render.notebook import findings_fragment, page_frame
from stabdiag.render.page import render_page, write_page

MEGABYTE = 1_000_000


class Page(HTMLParser):
    """The attributes of all elements, and the text outside of scripts and style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._silent = False
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self._silent = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._silent = False

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.text += data


@pytest.fixture(scope="module")
def page(failed_run: Run, failed_diagnosis: Diagnosis) -> str:
    return render_page(failed_run, failed_diagnosis)


def test_a_page_of_two_thousand_steps_is_at_most_three_megabytes(page: str) -> None:
    assert len(page.encode()) <= 3 * MEGABYTE


def test_the_page_without_plotly_is_small(failed_run: Run, failed_diagnosis: Diagnosis) -> None:
    assert len(render_page(failed_run, failed_diagnosis, "cdn").encode()) <= MEGABYTE


@pytest.mark.parametrize(
    ("configuration", "told"),
    [
        ({}, "stabdiag run train.py --name &#39;a b&#39;"),
        ({"budget": 0.02, "every": None, "keep_batches": 0, "guard": False}, "stabdiag run train.py --name"),
        ({"budget": 0.005, "every": None}, "stabdiag run --budget 0.5% train.py"),
        ({"budget": None, "every": None}, "stabdiag run --budget off train.py"),
        (
            {"budget": 0.02, "every": 7, "keep_batches": 8, "apply": ["qk-clip=30"], "guard": True},
            "stabdiag run --every 7 --keep-batches 8 --apply qk-clip=30 --guard train.py",
        ),
    ],
)
def test_the_command_to_copy_records_such_a_run_again(
    stable: Callable[[Run], Diagnosis], configuration: dict[str, object], told: str
) -> None:
    info = RunInfo(command=("train.py", "--name", "a b"), configuration=configuration)
    run = run_of({"run.loss": np.ones(20)}, info=info)
    assert f'<pre class="code">{told}' in render_page(run, stable(run))
    inside = replace(run, info=replace(info, command=("stabdiag.watch",)))
    assert "stabdiag run" not in render_page(inside, stable(inside))


def test_a_diagnosis_that_lags_behind_its_curves_says_how_far_it_looked(
    failed_run: Run, failed_diagnosis: Diagnosis
) -> None:
    behind = replace(failed_diagnosis, run={**failed_diagnosis.run, "steps": 1500})
    told = f"So far, to step 1,499: what was recorded since, to step {failed_run.steps - 1:,}, is drawn"
    assert told in render_page(failed_run, behind)
    assert "So far, to step" not in render_page(failed_run, failed_diagnosis)


def test_a_page_of_six_hundred_layers_is_at_most_three_megabytes(stable: Callable[[Run], Diagnosis]) -> None:
    """Of noise, which packs worst; more steps do not make it longer."""
    rng, names = np.random.default_rng(0), [f"encoder.blocks.{i // 6}.part{i % 6}" for i in range(600)]
    kinds = {
        "output": 3,
        "output_grad": 2,
        "grad": 3,
        "weight": 2,
        "update": 2,
        "attention": 3,
        "optimizer": 3,
    }
    inner = ("grad", "weight", "update", "optimizer")
    statistics = {"output": ("rms", "absmax", "mean"), "output_grad": ("rms", "absmax")}
    run = run_of(
        {
            "run.loss": rng.normal(size=700),
            **{
                f"{kind}.{name}": rng.normal(size=(700, 600))
                for kind, count in kinds.items()
                for name in statistics.get(kind, ("norm", "ratio", "rms")[:count])
            },
        },
        sites={
            kind: [Site(kind, f"{n}.weight" if kind in inner else n, order=i) for i, n in enumerate(names)]
            for kind in kinds
        },
    )
    assert len(render_page(run, stable(run)).encode()) <= 3 * MEGABYTE


def test_equal_runs_have_equal_pages(page: str, failed_run: Run, failed_diagnosis: Diagnosis) -> None:
    assert render_page(failed_run, failed_diagnosis) == page


def test_nothing_is_loaded_from_elsewhere(page: str, failed_run: Run, failed_diagnosis: Diagnosis) -> None:
    def addresses(html: str) -> list[str]:
        values = [v for _, a in Page(html).elements for k, v in a.items() if k in ("src", "href") and v]
        return [value for value in values if not value.startswith("#")]

    assert addresses(page) == []
    assert "default-src 'none'" in page
    (only,) = addresses(render_page(failed_run, failed_diagnosis, "cdn"))
    assert re.fullmatch(r"https://cdn\.plot\.ly/plotly-[\d.]+\.min\.js", only)


def test_what_users_named_is_text_and_no_markup(page: str) -> None:
    assert "<script>alert" not in page
    assert "<b>größe" not in page
    told = Page(page)
    assert "größe.<script>alert(1)</script>" in told.text
    assert "Lineär<b>" in told.text


def test_all_of_substance_is_there_without_a_script(page: str) -> None:
    text = " ".join(Page(page).text.split())
    for told in (
        "Failed: activations out of hand, in blocks.7.mlp and 3 more, since step 1,430",
        "the update-to-weight ratio passed 1e-2",
        "lower the peak learning rate from 3e-3 to 9e-4",
        "optimizer = torch.optim.AdamW(model.parameters(), lr=9e-4, betas=(0.9, 0.95))",
        "blocks.4.attn.qkv",
        "attention ran fused",
        "no gradient scaler is in use",
        "python train.py --lr 3e-3",
    ):
        assert told in text
    assert page.count('<svg class="chart"') == 5, "the loss, two incidents' evidence, gradient and updates"
    assert page.count('<rect class="span"') == 4
    assert page.count('<svg class="spark"') > 52


def test_every_anchor_leads_somewhere_and_ids_are_unique(page: str) -> None:
    elements = Page(page).elements
    ids = [a["id"] for _, a in elements if "id" in a]
    links = {str(a["href"])[1:] for _, a in elements if str(a.get("href", "")).startswith("#")}
    assert len(ids) == len(set(ids))
    assert {"layer-blocks-7-mlp", "incident-1", "finding-4"} <= links
    assert links <= set(ids)


def test_any_run_has_a_page(odd_run: Run, stable: Callable[[Run], Diagnosis]) -> None:
    page = render_page(odd_run, stable(odd_run))
    assert "<h1>Stable: " in page if odd_run.steps else "<h1>No training step was recorded." in page


def test_a_finding_whose_evidence_was_not_recorded_keeps_its_words(
    failed_run: Run, failed_diagnosis: Diagnosis
) -> None:
    bare = replace(failed_run, kinds={"run": failed_run.kinds["run"]})
    page = render_page(bare, failed_diagnosis)
    assert "grew 1,100-fold" in page
    assert page.count('<svg class="chart"') == 3, "the loss, the evidence that is of it, the gradient"


def test_a_place_that_cannot_be_written_is_one_line(
    tmp_path: Path, failed_run: Run, failed_diagnosis: Diagnosis
) -> None:
    with pytest.raises(StabdiagError, match=r"cannot write .*No such file or directory"):
        write_page(failed_run, failed_diagnosis, tmp_path / "missing" / "report.html")


def test_the_written_page_is_the_rendered_one(
    tmp_path: Path, page: str, failed_run: Run, failed_diagnosis: Diagnosis
) -> None:
    write_page(failed_run, failed_diagnosis, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page


def test_a_notebook_shows_the_page_in_a_frame_and_the_findings_as_a_list(
    page: str, failed_run: Run, failed_diagnosis: Diagnosis
) -> None:
    ((tag, attributes),) = Page(page_frame(failed_run, failed_diagnosis, 400)).elements
    assert tag == "iframe"
    assert attributes["srcdoc"] == page
    fragment = findings_fragment(failed_run, failed_diagnosis)
    assert fragment.count("<li>") == 3
    assert "<script" not in fragment
