"""Where what this machine alone may ask for is served."""

from __future__ import annotations

LOOPBACK = "127.0.0.1"
NAMES = (LOOPBACK, "localhost")
"""By which a request from this machine names it. A page of another site whose name is made to lead here has
its own name in the request."""
