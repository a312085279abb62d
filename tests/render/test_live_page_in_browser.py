"""The page of `stabdiag live --web` in a real browser: it renews itself, and the reader keeps the place."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from stabdiag.core.run import RunInfo
from stabdiag.core.site import Site
from stabdiag.store.info import write_info
from stabdiag.store.writer import RankWriter


class Growing:
    """A run that is written step by step."""

    def __init__(self, path):
        path.mkdir(parents=True)
        write_info(path, RunInfo(command=("train.py",), started=time.time(), host="elsewhere"))
        self.writer, self.steps = RankWriter(path, 0), 0

    def grow(self, steps):
        for step in range(self.steps, self.steps + steps):
            loss = {"loss": np.array([4 - step / 100], np.float32), "nonfinite": np.zeros(1, np.float32)}
            self.writer.write("run", step, time.time(), [Site("run", "run")], loss)
            norms = {"norm": np.ones(40, np.float32), "nonfinite": np.zeros(40, np.float32)}
            sites = [Site("grad", f"blocks.{i}.weight", order=i) for i in range(40)]
            self.writer.write("grad", step, time.time(), sites, norms)
        self.steps += steps


@pytest.mark.browser
def test_the_page_renews_itself_and_the_reader_keeps_the_place(tmp_path, browser):
    run = Growing(tmp_path / "stabdiag-runs" / "grows")
    run.grow(50)
    process = subprocess.Popen(
        [sys.executable, "-m", "stabdiag", "live", "stabdiag-runs/grows", "--web"], cwd=tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    page = browser.new_page()
    errors, asked = [], []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    try:
        address = process.stdout.readline().strip()
        page.goto(address)
        inner = page.frame_locator("iframe").first
        inner.locator("h1", has_text="50 steps").wait_for()
        layer = inner.locator("details.layer").nth(30)
        layer.locator("summary").click()
        name = layer.get_attribute("id")
        before = page.frames[1].evaluate("window.scrollTo(0, 900), scrollY")
        run.grow(20)
        coming = page.frame_locator("iframe.coming")
        coming.locator("h1", has_text="70 steps").wait_for(state="attached", timeout=30_000)
        page.locator("iframe.coming").wait_for(state="detached", timeout=10_000)
        (frame,) = page.frames[1:]
        assert "70 steps" in frame.inner_text("h1")
        assert frame.evaluate(f"document.getElementById('{name}').open") is True
        assert frame.evaluate("scrollY") == before > 0
        page.locator("#state", has_text="step 69").wait_for()
        assert not errors
        assert {url for url in asked if not url.startswith((address, "data:", "blob:"))} == set()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        page.locator("#state", has_text="has ended").wait_for()
        assert frame.is_visible("h1")
    finally:
        page.close()
        process.kill()
    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in err
