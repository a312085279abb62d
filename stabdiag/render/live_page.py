"""The page of a run that goes on, and what holds it in a browser and renews it."""

from __future__ import annotations

from functools import cache

import jinja2

from stabdiag.render.dashboard import Dashboard
from stabdiag.render.look import Look, State
from stabdiag.render.numbers import count
from stabdiag.render.page import render_page

LONGEST = 200


def holder(look: Look, version: int) -> str:
    """The document that holds the page, and looks again and again for a later `version` of it."""
    return _template("live.html").render(name=look.name[:LONGEST], state=state_words(look), version=version)


def state_words(look: Look) -> str:
    """`training, step 1,204, 2.4 steps/s, ETA unknown (live --steps N)`."""
    told = [look.state.value, *([f"step {count(look.run.steps - 1)}"] if look.run.steps else [])]
    if look.state is State.training:
        told += [look.progress.pace_words, look.progress.ending_words]
    return ", ".join(told)


def page(look: Look, dashboard: Dashboard) -> str:
    """As `stabdiag report` writes it; before the first step a word of it."""
    if look.diagnosis is None:
        return _template("waiting.html").render(name=look.name[:LONGEST], state=look.state.value)
    return render_page(look.run, look.diagnosis, dashboard=dashboard)


@cache
def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("stabdiag.render"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template(name)
