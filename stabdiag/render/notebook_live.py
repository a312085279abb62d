"""How a training goes, in a notebook, in one output that changes in place."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from stabdiag.analysis.diagnose import diagnose
from stabdiag.core.config import Configuration
from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.run import Run
from stabdiag.render.curve import Curve, curves
from stabdiag.render.numbers import count, number
from stabdiag.render.sparkline import sparkline

PERIOD = 0.5
"""Seconds between two pictures, at least."""

SHARE = 0.05
"""Part of a core that the pictures may take: training shares the process with them."""

COLUMNS = 40
SHOWN = (("loss", "run.loss"), ("gradient norm", "run.grad_norm"))


def in_a_frontend() -> bool:
    """Whether this is the kernel of a notebook, which can show HTML and change it later."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class LiveView(threading.Thread):
    """Draws what `look` returns, from `start` to `finish`; elsewhere than in a notebook, nothing.

    A failure ends the drawing and says so in its place, and never reaches the training.
    """

    def __init__(self, look: Callable[[], Run], config: Configuration) -> None:
        super().__init__(name="stabdiag-live", daemon=True)
        self._look = look
        self._config = config
        self._over = threading.Event()
        self._handle: Any = None

    def start(self) -> None:
        if in_a_frontend():
            from IPython import display

            # Here, and not in the thread: the output then belongs to the cell that asks for it.
            waiting = display.HTML("<div>waiting for the first step</div>")  # type: ignore[no-untyped-call]
            self._handle = display.display(waiting, display_id=True)  # type: ignore[no-untyped-call]
            super().start()

    def finish(self) -> None:
        """Returns when the last picture is there."""
        self._over.set()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        pause, last = PERIOD, False
        try:
            while not last:
                last = self._over.wait(pause)
                began = time.thread_time()
                run = self._look()
                if run.steps:
                    self._show(live_fragment(run, diagnose(run, self._config)))
                elif last:
                    self._show("")
                pause = max(PERIOD, (time.thread_time() - began) / SHARE)
        except Exception as error:
            told = Markup("<div>the live view failed, recording goes on: {}: {}</div>")
            self._show(str(told.format(type(error).__name__, error)))

    def _show(self, html: str) -> None:
        from IPython.display import HTML

        self._handle.update(HTML(html))  # type: ignore[no-untyped-call]


def live_fragment(run: Run, diagnosis: Diagnosis) -> str:
    """Where the training is, its loss and gradient norm, and what was found so far."""
    told = [count(run.steps, "step"), *_rate(run)]
    rows = [_row(label, found[0]) for label, series in SHOWN if (found := curves(run, series, ("run",), 1))]
    head = Markup("<div><b>{}</b></div>").format(", ".join(told))
    table = Markup('<table style="font-variant-numeric:tabular-nums">{}</table>').format(
        Markup("").join(rows)
    )
    findings = Markup(diagnosis._repr_html_()) if diagnosis.findings else Markup("")
    return str(Markup("<div>{}{}{}</div>").format(head, table, findings))


def _rate(run: Run) -> list[str]:
    """Steps a second over the last ones, where their times were recorded."""
    if "run.step_time" not in run:
        return []
    times = run.table("run.step_time").first()[-COLUMNS:]
    spent = float(times[times == times].sum())
    return [f"{number(len(times) / spent)} steps/s"] if spent else []


def _row(label: str, drawn: Curve) -> Markup:
    row = '<tr><td>{}</td><td style="text-align:right">{}</td><td><code>{}</code></td></tr>'
    return Markup(row).format(label, number(float(drawn.values[-1])), sparkline(drawn, COLUMNS))
