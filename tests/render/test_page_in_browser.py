"""The page in a real browser: charts, heat map, filter, links, and no word to anybody outside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.run import Run
from stabdiag.render.notebook import page_frame
from stabdiag.render.page import write_page

pytestmark = pytest.mark.browser


class Visit:
    """An open page, what it complained of and what it asked for."""

    def __init__(self, context: Any, address: str) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page = context.new_page()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)

    def drawn(self, figure: str) -> Any:
        """The figure, scrolled to, once plotly has drawn it."""
        found = self.page.locator(figure)
        found.scroll_into_view_if_needed()
        layer = f"{figure} :is(.scatterlayer .trace, .heatmaplayer image)"
        self.page.wait_for_selector(layer, state="attached", timeout=20_000)
        return found


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, failed_run: Run, failed_diagnosis: Diagnosis) -> str:
    path: Path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(failed_run, failed_diagnosis, path)
    return path.as_uri()


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Visit]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    yield Visit(context, address)
    context.close()


def test_charts_are_drawn_when_scrolled_to_without_a_complaint_or_a_request(
    visit: Visit, address: str
) -> None:
    for figure in ("[data-chart=timeline]", "[data-chart=evidence-1]", "[data-chart=evidence-2]", "#heat"):
        visit.drawn(figure)
    assert visit.page.locator(".card").count() == 2
    assert visit.page.locator("[data-chart=timeline] .scatterlayer .trace").count() == 3
    assert visit.complaints == []
    assert [url for url in visit.requests if not url.startswith(("data:", "blob:"))] == [address]


def test_the_selector_changes_the_series_of_the_heat_map(visit: Visit) -> None:
    heat = visit.drawn("#heat")
    assert heat.locator(".inner").get_attribute("data-series") == "output.rms"
    visit.page.select_option("#heat-series", label="grad.norm")
    visit.page.wait_for_selector("#heat .inner[data-series='grad.norm']")
    rows, columns, told = visit.page.evaluate(
        "(({z, text}) => [z.length, z[0].length, text[1][500]])"
        "(document.querySelector('#heat .inner').data[0])"
    )
    assert (rows, columns) == (28, 600)
    assert told.startswith("blocks.0.ln_1.weight<br>step 1")
    assert visit.complaints == []


def test_a_click_on_a_row_opens_its_layer_and_back_leads_back(visit: Visit) -> None:
    box = visit.drawn("#heat").locator(".nsewdrag").first.bounding_box()
    visit.page.mouse.move(box["x"] + 200, box["y"] + 3)
    visit.page.mouse.click(box["x"] + 200, box["y"] + 3)
    visit.page.wait_for_selector("#layer-wte[open]")
    visit.page.locator("#layer-wte .drawer a").click()
    assert visit.page.evaluate("location.hash") == "#finding-4"
    visit.page.go_back()
    assert visit.page.evaluate("location.hash") == "#layer-wte"


def test_a_findings_site_opens_its_layer(visit: Visit) -> None:
    visit.page.locator("#incident-1 a.site", has_text="blocks.6.mlp").click()
    assert visit.page.locator("#layer-blocks-6-mlp").get_attribute("open") is not None
    assert visit.page.locator("#layer-blocks-6-mlp .drawer").is_visible()


def test_an_opened_layer_shows_the_course_of_each_of_its_series(visit: Visit) -> None:
    visit.page.locator("#incident-1 a.site", has_text="blocks.6.mlp").click()
    courses = visit.page.locator("#layer-blocks-6-mlp .courses")
    courses.locator("svg").first.wait_for(state="attached")
    told = courses.inner_text()
    assert "output.rms" in told
    assert "output_grad.absmax" in told
    assert "not finite" in told
    assert courses.locator("path.broken").first.get_attribute("d")


def test_a_page_that_is_opened_at_a_layer_shows_it(browser: Any, address: str) -> None:
    context = browser.new_context()
    visit = Visit(context, f"{address}#layer-blocks-6-mlp")
    visit.page.locator("#layer-blocks-6-mlp[open] .courses svg").first.wait_for(state="attached")
    context.close()


def test_the_contents_lead_to_each_section(visit: Visit) -> None:
    links = visit.page.locator("nav.contents a")
    assert links.count() > 5
    for i in range(links.count()):
        links.nth(i).click()
        anchor = visit.page.evaluate("location.hash")
        assert anchor.startswith("#section-")
        assert visit.page.locator(anchor).count() == 1
    assert visit.complaints == []


def test_layers_are_filtered_and_sorted(visit: Visit) -> None:
    shown = "#layers .layer:not([hidden])"
    visit.page.fill("#layer-filter", "LN_1")
    assert visit.page.locator(shown).count() == 8
    visit.page.fill("#layer-filter", "")
    visit.page.check("#layer-flagged")
    assert visit.page.locator(shown).count() == 7
    visit.page.uncheck("#layer-flagged")
    visit.page.click("[data-sort=order]")
    visit.page.click("[data-sort=order]")
    assert "größe" in visit.page.locator(shown).first.inner_text()
    visit.page.click("[data-sort=size]")
    sizes = [
        int(text.replace(",", "") or 0) for text in visit.page.locator(f"{shown} .size").all_inner_texts()
    ]
    assert sizes == sorted(sizes, reverse=True)
    visit.page.click("[data-sort=output]")
    assert visit.page.locator(f"{shown} summary .measure").nth(1).inner_text() == "NaN", "broken ones first"


def test_the_code_of_a_fix_is_copied(visit: Visit) -> None:
    visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button = visit.page.locator("#incident-1 .fixes .copy").first
    button.click()
    visit.page.get_by_text("Copied").wait_for()
    copied = visit.page.evaluate("navigator.clipboard.readText()")
    assert copied == "optimizer = torch.optim.AdamW(model.parameters(), lr=9e-4, betas=(0.9, 0.95))"


def test_the_page_reads_without_a_script(browser: Any, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = Visit(context, address).page
    assert page.locator("h1").inner_text().startswith("Failed: ")
    assert page.get_by_text("lower the peak learning rate from 3e-3 to 9e-4").is_visible()
    assert page.locator("svg.chart").first.is_visible()
    assert page.locator("#layer-lm-head summary").is_visible()
    assert not page.locator("#layer-filter").is_visible()
    context.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 390), ("dark", 1280)])
def test_no_width_needs_sideways_scrolling(browser: Any, address: str, scheme: str, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    visit = Visit(context, address)
    visit.drawn("#heat")
    assert visit.page.evaluate("document.documentElement.scrollWidth") == width
    ink, paper = visit.page.evaluate("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
    assert (sum(map(int, ink[4:-1].split(","))) > sum(map(int, paper[4:-1].split(",")))) == (scheme == "dark")
    context.close()


def test_links_work_inside_the_frame_of_a_notebook(
    browser: Any, tmp_path: Path, failed_run: Run, failed_diagnosis: Diagnosis
) -> None:
    host = tmp_path / "notebook.html"
    host.write_text(
        f"<!doctype html><meta charset=utf-8>{page_frame(failed_run, failed_diagnosis)}", encoding="utf-8"
    )
    context = browser.new_context()
    visit = Visit(context, host.as_uri())
    frame = visit.page.frame_locator("iframe")
    frame.locator("#incident-1 a.site").first.click()
    frame.locator("#layer-blocks-7-mlp[open] .drawer").wait_for()
    frame.locator("[data-chart=timeline] .main-svg").first.wait_for(state="attached")
    assert visit.complaints == []
    context.close()
