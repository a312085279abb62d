"""A comparison as page and as text; in a browser: its maps, its layers, and no word to anybody outside."""

from __future__ import annotations

import base64
import io
import re
import struct
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stabdiag.analysis.comparison.engine import compare
from stabdiag.core.comparison import Comparison, Difference
from stabdiag.core.run import Run, RunInfo
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of
from stabdiag.render.comparison import words
from stabdiag.render.comparison.heat import differences
from stabdiag.render.comparison.markdown import render_markdown
from stabdiag.render.comparison.page import page_name, render_page, write_page
from stabdiag.render.comparison.png import data_address
from stabdiag.render.comparison.text import render_text
from stabdiag.render.terminal import console_for

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e../../x"
STEPS, WIDTH, PARTED = 400, 12, 240
NAMES = [f"blocks.{i}" for i in range(WIDTH - 1)] + [HOSTILE]


def made(parted: bool) -> Run:
    rng = np.random.default_rng(0)
    outputs = np.exp(0.05 * rng.normal(size=(STEPS, WIDTH)))
    loss = 1 + np.exp(-np.arange(STEPS) / 50) + 0.02 * rng.normal(size=STEPS)
    if parted:
        outputs[PARTED:, 5:] *= 2.5
        outputs[PARTED:, 8] *= 0.1
        outputs[300:, 11] = np.inf
        loss[PARTED + 5 :] *= 2
    sites = [Site("output", name, "Block", (8, 4), "float32", i) for i, name in enumerate(NAMES)]
    info = RunInfo(
        command=("train.py", HOSTILE if parted else "plain"),
        configuration={"option of a long name": "value" * (9 if parted else 6)},
    )
    series = {"run.loss": loss, "run.grad_norm": np.ones(STEPS), "output.rms": outputs}
    run = run_of(series, sites={"output": sites}, info=info)
    return Run(run.info, run.kinds, run.events, Path("runs") / ("b" if parted else HOSTILE.replace("/", "")))


@pytest.fixture(scope="module")
def pair() -> tuple[Run, Run, Comparison]:
    a, b = made(parted=False), made(parted=True)
    return a, b, compare(a, b)


def test_a_picture_holds_its_cells():
    cells = np.arange(12, dtype=np.uint8).reshape(3, 4)
    address = data_address(cells, [(i, 0, 0, 255 - i) for i in range(256)])
    picture = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    assert picture[16:24] == struct.pack(">II", 4, 3)
    at = picture.index(b"IDAT")
    (length,) = struct.unpack(">I", picture[at - 4 : at])
    assert zlib.decompress(picture[at + 4 : at + 4 + length]) == b"".join(b"\0" + bytes(row) for row in cells)


def test_cells_tell_by_how_many_noises_and_which_way(pair):
    (difference,) = differences(*pair[:2])
    cells, column = difference.cells, int(difference.steps.searchsorted(PARTED))
    assert (cells[:, : column - 1] == 128).all()
    assert (cells[5:8, column + 1 :] > 128).all()
    assert (cells[8, column + 1 :] < 128).all()
    assert (cells[:5] == 128).all()
    assert cells[11, -1] == 255


def test_the_page_tells_it_all_without_a_word_of_markup_from_outside(pair):
    page = render_page(*pair)
    assert "They part at step 240: output.rms at blocks.5 (Block)" in page
    assert "<script>alert" not in page
    assert "\\u003cscript>alert" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "../../x" in page  # told, and no part of a path
    assert len(page) < 300_000
    assert page == render_page(*pair)


def test_a_page_has_a_plain_name(pair, tmp_path):
    a, b, told = pair
    assert page_name(a) == "compare-script-alert-1-script-31m-....x.html"
    write_page(a, b, told, tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size > 10_000


def test_a_terminal_shows_no_control_character_and_no_line_beyond_its_width(pair):
    a, b, told = pair
    stream = io.StringIO()
    render_text(a, b, told, console_for(stream))
    said = stream.getvalue()
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert max(map(len, said.splitlines())) <= 80
    assert " ".join(said.split()).startswith("They part at step 240: output.rms at blocks.5 (Block), ")
    assert "not finite" not in said.partition("Where they settle")[0].partition("Where they part")[0]


def test_markdown_has_no_markup_of_its_names(pair):
    said = render_markdown(pair[2])
    assert not re.search(r"(?<!\\)<", re.sub("`[^`]*`", "", said))
    assert not [c for c in said if c != "\n" and unicodedata.category(c)[0] == "C"]
    assert "| command | `train.py plain` | `" in said


def test_identical_runs_have_no_map_and_no_table():
    a = made(parted=False)
    page = render_page(a, a, compare(a, a))
    assert "Identical to the bit" in page
    assert 'class="apart"' not in page


NAMED = (
    "<script>document.title = 'taken'</script>",
    '"><img src=x onerror="document.title=1">',
    "javascript:document.title='taken'",
    "../../../etc/passwd",
    "\x1b]0;taken\x07",
    "nul\x00byte",
    "left\u202egnirts\u2066",
    "half\ud800",
    "long" * 2_500_000,
)


@pytest.fixture(scope="module")
def taken() -> tuple[Run, Run, Comparison]:
    """All that can have a name has such a one, in two runs that part everywhere."""
    sites = [Site("output", name, name, order=i, source=f"{name}:1") for i, name in enumerate(NAMED)]
    more = [Site("output", f"{name}2", order=i) for i, name in enumerate(NAMED)]
    runs = []
    for scale, named in ((1.0, [*sites, *more]), (9.0, sites)):
        values = np.ones((60, len(named)))
        values[30:] *= scale
        series = {"run.loss": np.ones(60), "output.rms": values}
        info = RunInfo(command=NAMED * int(scale), host=NAMED[0], cwd=NAMED[4], device=NAMED[7])
        run = run_of(series, sites={"output": named}, info=info)
        runs.append(Run(run.info, run.kinds, run.events, Path("x" + NAMED[int(scale) // 2].replace("/", ""))))
    return *runs, compare(*runs)


def test_nothing_that_has_a_name_writes_the_page_or_the_terminal(taken):
    page = render_page(*taken)
    stream = io.StringIO()
    render_text(*taken, console_for(stream))
    for shown in (page, stream.getvalue(), render_markdown(taken[2])):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown)
        assert len(shown) < 500_000
    assert "<script>document.title" not in page
    assert "<img src=x" not in page
    assert not re.search(r'(href|src)="(?!#|data:image/png;base64,)', page)
    assert "unsafe-inline" not in page.partition("style-src-attr")[0]


@pytest.mark.browser
def test_no_name_runs_in_the_page(browser, taken, tmp_path):
    write_page(*taken, tmp_path / "page.html")
    context = browser.new_context()
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto((tmp_path / "page.html").as_uri())
    page.locator(".apart.shown img").click(position={"x": 5, "y": 5})
    assert page.title().startswith("stabdiag: They part")
    assert complaints == []
    context.close()


@pytest.fixture
def visit(browser: Any, tmp_path: Path, pair: tuple[Run, Run, Comparison]) -> Iterator[Any]:
    write_page(*pair, tmp_path / "page.html")
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.complaints = []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    address = (tmp_path / "page.html").as_uri()
    page.on("request", lambda asked: None if asked.url == address else page.complaints.append(asked.url))
    page.goto(address)
    yield page
    context.close()


@pytest.mark.browser
def test_a_cell_says_what_it_is_and_a_click_opens_its_layer(visit):
    picture = visit.locator(".apart.shown img")
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()
    assert visit.evaluate("document.querySelector('.apart.shown img').naturalWidth") == STEPS
    at = (box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 5.5 / WIDTH)
    visit.mouse.move(*at)
    told = visit.locator("#told", has_text="blocks.5, step 2")  # the policy lets no function be waited for
    told.wait_for(state="attached")
    assert "B higher" in visit.locator("#told").inner_text()
    assert not visit.locator("#layer-blocks-5").is_visible()  # a page of many layers is folded
    visit.mouse.click(*at)
    assert visit.evaluate("location.hash") == "#layer-blocks-5"
    visit.locator("#layer-blocks-5").wait_for(state="visible")
    assert [said for said in visit.complaints if not said.startswith("data:")] == []


@pytest.mark.browser
def test_names_and_mark_lie_beside_their_rows_and_step(visit):
    cells = visit.locator(".apart.shown .cells").bounding_box()
    mark = visit.locator(".apart.shown .mark").bounding_box()
    assert (mark["x"] - cells["x"]) / cells["width"] == pytest.approx(PARTED / STEPS, abs=0.01)
    for row in (0, 5, WIDTH - 1):
        named = visit.locator(".apart.shown .names span").nth(row).bounding_box()
        middle = named["y"] + named["height"] / 2 - cells["y"]
        assert middle / cells["height"] * WIDTH == pytest.approx(row + 0.5, abs=0.2)
    assert visit.locator("[style]").count() == 0
    assert [said for said in visit.complaints if not said.startswith("data:")] == []


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1280)])
def test_the_page_reads_without_a_script_at_any_width(browser, tmp_path, pair, scheme, width):
    write_page(*pair, tmp_path / "page.html")
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=False
    )
    page = context.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    assert page.locator("h1").inner_text().startswith("They part at step 240")
    assert page.locator(".apart img").first.is_visible()
    assert not page.locator("#map-series").is_visible()
    sides = page.locator("table.settings td.site")
    for side in (sides.first.bounding_box(), sides.last.bounding_box()):
        assert side["x"] >= 0
        assert side["x"] + side["width"] <= width
    # Nothing sticks out to the right.
    assert page.locator("main").bounding_box()["width"] <= width
    context.close()


def test_a_run_that_ends_early_is_told_and_drawn_as_long_as_it_is():
    whole = made(parted=False)
    early = Run(whole.info, whole.window(0, 199).kinds)
    told = compare(whole, early)
    assert words.verdict_sentence(told).endswith(" over 200 steps, where B ends; A goes on to step 399.")
    stream = io.StringIO()
    render_text(whole, early, told, console_for(stream))
    drawn = {line.split()[1]: line.split()[2] for line in stream.getvalue().splitlines() if "  loss " in line}
    assert len(drawn["B"]) == len(drawn["A"]) // 2


def test_of_two_long_commands_the_words_that_differ_are_shown():
    common = " ".join(f"--option-{i}=1" for i in range(20))
    for a, b, shown in (
        (f"t.py {common} --lr 1", f"t.py {common} --lr 2", ("t.py … --lr 1", "t.py … --lr 2")),
        (f"t.py {common}", f"u.py {common}", ("t.py …", "u.py …")),
        (f"t.py {common}", f"t.py {common} --x", ("t.py … --option-19=1", "t.py … --option-19=1 --x")),
        ("t.py --lr 1", "", ("t.py --lr 1", "none")),
    ):
        assert words.sides(Difference("command", a, b)) == shown
