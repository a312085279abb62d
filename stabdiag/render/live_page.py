"""The page of a run that goes on, and what holds it in a browser and renews it."""

from __future__ import annotations

from functools import cache

import jinja2
from markupsafe import Markup

from stabdiag.render.dashboard import Dashboard
from stabdiag.render.document import environment, source
from stabdiag.render.look import Look, State
from stabdiag.render.numbers import count
from stabdiag.render.page import render_page
from stabdiag.render.policy import policy
from stabdiag.render.untrusted import name

OF_THE_SERVER = {"connect-src": "'self'", "frame-src": "'self'"}
"""Where the state and the page that is held come from."""


def holder(look: Look, version: int) -> str:
    """The document that holds the page, and looks again and again for a later `version` of it."""
    style, script = source("live.css"), source("live.js")
    return _template("live.html").render(
        look=look,
        state=state_words(look),
        version=version,
        policy=Markup(policy(style, [script], besides=OF_THE_SERVER)),
        style=Markup(style),
        script=Markup(script),
    )


def state_words(look: Look) -> str:
    """`training, step 1,204, 2.4 steps/s, ETA unknown (live --steps N)`."""
    told = [look.state.value, *([f"step {count(look.run.steps - 1)}"] if look.run.steps else [])]
    if look.state is State.training:
        told += [look.progress.pace_words, look.progress.ending_words]
    return ", ".join(told)


def page(look: Look, dashboard: Dashboard) -> str:
    """As `stabdiag report` writes it; before the first step a word of it."""
    if look.diagnosis is None:
        style = source("style.css")
        told = Markup(policy(style, []))
        return _template("waiting.html").render(look=look, policy=told, style=Markup(style))
    return render_page(look.run, look.diagnosis, dashboard=dashboard)


@cache
def _template(file: str) -> jinja2.Template:
    return environment(name=name).get_template(file)
