"""`stabdiag live --web`: the page, served to this machine alone, and to who has its address."""

from __future__ import annotations

import json
import secrets
import socketserver
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import NamedTuple

from stabdiag.launch.loopback import LOOPBACK, NAMES
from stabdiag.launch.onlooker import Onlooker
from stabdiag.launch.voice import Voice
from stabdiag.render.dashboard import Dashboard
from stabdiag.render.live_page import holder, page, state_words
from stabdiag.render.look import Look

PERIOD = 5.0
"""Seconds between two renderings, at least."""

SHARE = 0.1
"""Part of one core that rendering may take."""

TICK = 0.5
TIMEOUT = 10.0
"""Seconds that a browser has to send its request."""


class Content(NamedTuple):
    """A rendering; `version` counts them."""

    version: int
    look: Look
    html: bytes


class PageServer(socketserver.ThreadingTCPServer):
    """Serves `content` and the state of the last `look` to whoever names the token, at a random port."""

    daemon_threads = True
    allow_reuse_address = False

    def __init__(self, content: Content) -> None:
        self.content = content
        self.look = content.look
        self.token = secrets.token_urlsafe(24)
        super().__init__((LOOPBACK, 0), Handler)
        port = self.server_address[1]
        self.hosts = tuple(f"{name}:{port}" for name in NAMES)
        self.address = f"http://{LOOPBACK}:{port}/{self.token}/"

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that went away in the middle is no error of ours."""


class Handler(BaseHTTPRequestHandler):
    """Answers GET and nothing else."""

    server: PageServer
    timeout = TIMEOUT
    server_version = "stabdiag"
    sys_version = ""

    def do_GET(self) -> None:
        if self.headers.get("Host", "") not in self.server.hosts:
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        _, token, *rest = (self.path.partition("?")[0] + "/").split("/")
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        content = self.server.content
        if rest == ["", ""]:
            self._send(holder(content.look, content.version).encode(), "text/html; charset=utf-8")
        elif rest == ["page", ""]:
            self._send(content.html, "text/html; charset=utf-8")
        elif rest == ["version", ""]:
            told = {"version": content.version, "state": state_words(self.server.look)}
            self._send(json.dumps(told).encode(), "application/json")
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _send(self, body: bytes, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Content-Security-Policy", "frame-ancestors 'self'")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """The terminal is not for this."""


def serve(onlooker: Onlooker, dashboard: Dashboard, voice: Voice) -> None:
    """Until it is interrupted, or the run cannot be read. The address goes to stdout."""
    with PageServer(_rendered(0, onlooker.latest, dashboard)) as server:
        threading.Thread(target=server.serve_forever, name="stabdiag-web", daemon=True).start()
        print(server.address, flush=True)
        voice.say("this machine only, and only at this address; Ctrl-C ends it, the training goes on")
        try:
            _renew(server, onlooker, dashboard, voice)
        finally:
            server.shutdown()


def _renew(server: PageServer, onlooker: Onlooker, dashboard: Dashboard, voice: Voice) -> None:
    pause, rendered, failed = PERIOD, time.monotonic(), False
    while onlooker.failure is None:
        time.sleep(TICK)
        server.look, content = onlooker.latest, server.content
        if _mark(server.look) == _mark(content.look) or time.monotonic() - rendered < pause:
            continue
        began = time.thread_time()
        try:
            server.content = _rendered(content.version + 1, server.look, dashboard)
        except Exception as error:
            if not failed:
                voice.complain(f"the page could not be renewed: {type(error).__name__}: {error}")
            failed = True
        rendered = time.monotonic()
        pause = max(PERIOD, (time.thread_time() - began) / SHARE)


def _mark(look: Look) -> tuple[object, ...]:
    """What makes a look worth a new page."""
    found = look.diagnosis.findings if look.diagnosis else ()
    judged = look.diagnosis.run.get("steps") if look.diagnosis else 0
    return look.state, look.run.steps, judged, [(f.signature, f.severity, f.onset_step) for f in found]


def _rendered(version: int, look: Look, dashboard: Dashboard) -> Content:
    return Content(version, look, page(look, dashboard).encode("utf-8", "replace"))
