"""`stabdiag live --web`: who gets an answer."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.run import Run, RunInfo
from stabdiag.core.synthetic import run_of
from stabdiag.launch.web import Content, PageServer, _mark
from stabdiag.render.dashboard import load_dashboard
from stabdiag.render.live_page import holder, page
from stabdiag.render.look import Look, State
from stabdiag.render.progress import progress

HOSTILE = "</title><script>alert(1)</script>\x00\u202e" + "x" * 100_000


@pytest.fixture
def server():
    nothing = Run(RunInfo(), {})
    look = Look("a run", State.waiting, nothing, None, progress(nothing, 0.0))
    with PageServer(Content(3, look, b"<h1>the page</h1>")) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def ask(server, path, method="GET", **headers):
    """Status, headers and body; `Host` as a browser sends it, unless it is given."""
    at = urlsplit(server.address)
    connection = http.client.HTTPConnection(at.hostname, at.port, timeout=10)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def test_the_address_leads_to_the_page(server):
    base = urlsplit(server.address).path
    assert ask(server, base)[0] == 200
    assert ask(server, f"{base}page?7")[2] == b"<h1>the page</h1>"
    told = json.loads(ask(server, f"{base}version")[2])
    assert told == {"version": 3, "state": "waiting for its first step"}
    assert ask(server, f"{base}other")[0] == 404


def test_every_start_has_another_token(server):
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", server.address)
    with PageServer(server.content) as other:
        assert other.token != server.token


@pytest.mark.parametrize(
    "path",
    ["/", "/page", "//page", "/wrong/page", "/{short}/page", "/{long}/page", "/%E9/", "/../x"],
)
def test_without_the_token_there_is_nothing(server, path):
    path = path.format(short=server.token[:-1], long=server.token + "x")
    status, _, body = ask(server, path)
    assert status == 403
    assert b"the page" not in body


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", "[::1]:{port}"]
)
def test_a_name_of_another_site_that_leads_here_gets_nothing(server, host):
    port = urlsplit(server.address).port
    status, _, body = ask(server, f"/{server.token}/page", Host=host.format(port=port))
    assert status == 403
    assert b"the page" not in body


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_nothing_but_get_is_answered(server, method):
    assert ask(server, f"/{server.token}/page", method)[0] == 501


def test_it_listens_on_the_loopback_alone(server):
    assert server.server_address[0] == "127.0.0.1"
    with socket.socket() as attempt:
        attempt.settimeout(1)
        assert attempt.connect_ex(("127.0.0.2", server.server_address[1])) != 0


def test_the_page_is_kept_nowhere_and_shown_in_no_other_site(server):
    _, headers, _ = ask(server, f"/{server.token}/page")
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Content-Security-Policy"] == "frame-ancestors 'self'"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_one_that_sends_nothing_keeps_nobody_waiting(server):
    with socket.create_connection(server.server_address):
        assert ask(server, f"/{server.token}/page")[0] == 200


def test_a_hostile_name_is_text():
    nothing = Run(RunInfo(), {})
    held = holder(Look(HOSTILE, State.waiting, nothing, None, progress(nothing, 0.0)), 0)
    assert "alert(1)</script>" not in held
    assert len(held) < 20_000


def test_a_diagnosis_that_has_caught_up_is_worth_a_new_page():
    run = run_of({"run.loss": [3.0, 2.0, 1.0]})
    behind, now = (Diagnosis("stable", (), (), (), {"steps": steps}) for steps in (2, 3))
    first = Look("x", State.training, run, behind, progress(run, 0.0))
    assert _mark(first) == _mark(replace(first, name="y"))
    assert _mark(first) != _mark(replace(first, diagnosis=now))


def test_neither_what_holds_the_page_nor_what_waits_for_it_lets_in_a_style_or_a_script():
    nothing = Run(RunInfo(), {})
    look = Look(HOSTILE, State.waiting, nothing, None, progress(nothing, 0.0))
    for held in (holder(look, 0), page(look, load_dashboard())):
        assert "'sha256-" in held
        assert "unsafe-inline" not in held
        assert "alert(1)</script>" not in held
        assert "\x00" not in held
        assert "\u202e" not in held
