"""Whoever names a module or a file does not write the page, nor runs in it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stabdiag.core.diagnosis import Batch, Culprit, Diagnosis, FirstMover, FixAdvice, Incident, Skipped
from stabdiag.core.event import Event
from stabdiag.core.finding import CauseRanked, Evidence, Finding, Severity
from stabdiag.core.run import Run, RunInfo
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of
from stabdiag.render.page import render_page, write_page
from stabdiag.render.policy import policy
from stabdiag.render.untrusted import LONGEST, name, presentable, presented

HOSTILE = (
    "<script>document.title = 'taken'</script>",
    "javascript:document.title='taken'",
    '"><img src=x onerror="document.title=\'taken\'">',
    "</script><svg onload=alert(1)>",
    "../../../etc/passwd",
    "\x1b[31mred\x1b]0;taken\x07",
    "nul\x00byte",
    "left\u202egnirts\u2066",
    "half\ud800",
    "<!--{{ 7 * 7 }}-->",
    "long" * 2_500_000,
)


def _hostile_run() -> tuple[Run, Diagnosis]:
    modules = [Site("output", n, n, (2,), order=i, source=f"{n}:1") for i, n in enumerate(HOSTILE)]
    parameters = [Site("grad", f"{n}.weight", order=i) for i, n in enumerate(HOSTILE)]
    width = len(HOSTILE)
    ramp = np.outer(np.arange(1, 41), np.arange(1, width + 1)).astype(float)
    run = run_of(
        {
            "run.loss": 1 / np.arange(1, 41),
            "output.rms": ramp,
            "grad.norm": ramp,
            "attention.max_logit": ramp,
            "batch.fingerprint": ramp,
        },
        sites={
            "output": modules,
            "grad": parameters,
            "attention": [replace(site, kind="attention") for site in modules],
            "batch": [Site("batch", n, order=i) for i, n in enumerate(HOSTILE)],
        },
        events=[
            *(Event("coverage", 0.0, data={"what": n, "because": n}) for n in HOSTILE),
            Event("exception", 1.0, 39, data={"type": HOSTILE[0], "message": HOSTILE[5]}),
            Event("model", 0.0, data={"name": HOSTILE[2]}),
        ],
        info=RunInfo(
            command=HOSTILE, exit_status=1, host=HOSTILE[0], device=HOSTILE[5], git_commit=HOSTILE[1]
        ),
    )
    evidence = (Evidence("output.rms", HOSTILE, threshold=3.0),)
    cause = CauseRanked(HOSTILE[0], 0.8, f"{HOSTILE[2]}; but {HOSTILE[7]}")
    findings = tuple(
        Finding(Severity.critical, 0.9, HOSTILE, 5, 6, 7, n, evidence=evidence, signature=n, causes=(cause,))
        for n in HOSTILE
    )
    incident = Incident(
        Severity.critical,
        0,
        tuple(range(width)),
        5,
        cause,
        (FixAdvice(HOSTILE[0], HOSTILE[2], HOSTILE[3], HOSTILE[0]),),
        FirstMover("output.rms", HOSTILE[0], 3, 2, 1.0, (0.0, 1.0), 4),
        Culprit(HOSTILE[0], HOSTILE[2], HOSTILE[3], source=HOSTILE[4], batch=Batch(5, 7)),
    )
    block = {"path": HOSTILE[4], "command": list(HOSTILE), "steps": 40, "exit_status": 1}
    skipped = tuple(Skipped(n, n) for n in HOSTILE)
    return run, Diagnosis("failed", (incident,), findings, skipped, block)


@pytest.fixture(scope="module")
def hostile() -> tuple[Run, Diagnosis]:
    return _hostile_run()


@pytest.fixture(scope="module")
def page(hostile: tuple[Run, Diagnosis]) -> str:
    return render_page(*hostile)


def test_names_are_shown_and_never_markup(page: str) -> None:
    assert "<script>document.title" not in page
    assert "<img src=x" not in page
    assert "<svg onload" not in page
    assert "&lt;script&gt;document.title = &#39;taken&#39;&lt;/script&gt;" in page
    assert not re.search(r'(href|src)="(?!#)', page)
    assert "{{ 7 * 7 }}" in page


def test_what_cannot_be_seen_is_spelled_out(page: str) -> None:
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", page)
    for told in (r"\x1b[31mred", r"nul\x00byte", r"left\u202egnirts\u2066", r"half\ud800"):
        assert told in page


def test_names_of_ten_megabytes_do_not_make_the_page_long(page: str) -> None:
    assert len(page.encode()) <= 3_000_000
    assert max(len(found) for found in re.findall(r'id="([^"]*)"', page)) < 200


def test_only_the_scripts_of_the_page_may_run(page: str) -> None:
    found = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert found
    rules = dict(rule.split(" ", 1) for rule in found[1].split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert "unsafe" not in rules["script-src"]
    assert "unsafe" not in rules["style-src-elem"]
    assert "connect-src" not in rules


def test_a_page_without_plotly_may_style_nothing_but_by_its_sheet() -> None:
    rules = dict(rule.split(" ", 1) for rule in policy("p {}", ["1"]).split("; "))
    assert set(rules) == {"default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"}
    assert "unsafe" not in str(rules)
    assert rules["script-src"] == "'sha256-a4ayc/80/OGda4BO/1o/V0etpOqiLx1JwB5S3beHW0s='"
    assert dict(rule.split(" ", 1) for rule in policy("", []).split("; "))["script-src"] == "'none'"


def test_texts_are_cut_in_their_middle_and_markup_is_left_alone() -> None:
    assert presentable("a\tb\nc") == "a\tb\nc"
    assert len(presentable("x" * 20_000)) <= LONGEST
    assert name("start" + "x" * 500 + "end").startswith("startx")
    assert name("start" + "x" * 500 + "end").endswith("xend")
    assert presented({"a\x00": ["b\x1b", ("c", 1.5, None)], "d": {"bdata": "\x00"}}) == {
        "a\\x00": ["b\\x1b", ["c", 1.5, None]],
        "d": {"bdata": "\x00"},
    }


@pytest.mark.browser
def test_a_page_of_hostile_names_works_and_does_nothing_that_they_say(
    browser: Any, tmp_path: Path, hostile: tuple[Run, Diagnosis]
) -> None:
    write_page(*hostile, tmp_path / "report.html")
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    shown = context.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    shown.on("console", lambda message: complaints.append(message.text))
    shown.on("pageerror", lambda error: complaints.append(str(error)))
    shown.on("dialog", lambda dialog: complaints.append(dialog.message))
    shown.on("request", lambda request: requests.append(request.url))
    shown.goto((tmp_path / "report.html").as_uri())
    title = shown.title()
    for figure in ("[data-chart=timeline]", "[data-chart=evidence-1]", "#heat", "#section-attention .plot"):
        shown.locator(figure).first.scroll_into_view_if_needed()
        shown.wait_for_selector(f"{figure} .main-svg", state="attached", timeout=20_000)
    shown.fill("#layer-filter", "passwd")
    assert shown.locator("#layers .layer:not([hidden])").count() == 1
    shown.fill("#layer-filter", "")
    shown.click("[data-sort=output]")
    shown.locator("#incident-1 a.site").first.click()
    shown.locator(".layer[open] .courses svg").first.wait_for(state="attached")
    shown.locator(".layer[open] .drawer a").first.click()
    assert shown.evaluate("location.hash") == "#incident-1"
    assert shown.title() == title
    assert title.startswith("stabdiag: Failed")
    assert complaints == []
    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == [
        (tmp_path / "report.html").as_uri()
    ]
    context.close()


@pytest.mark.browser
def test_a_script_that_found_its_way_into_the_page_does_not_run(
    browser: Any, tmp_path: Path, hostile: tuple[Run, Diagnosis]
) -> None:
    """The second line of defence, should an escape be missing one day."""
    page = render_page(*hostile, "cdn").replace("<main>", "<main><script>document.title = 'ours'</script>")
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    context = browser.new_context()
    shown = context.new_page()
    context.route("https://**", lambda route: route.abort())
    shown.goto((tmp_path / "report.html").as_uri())
    assert shown.title() != "ours"
    context.close()
