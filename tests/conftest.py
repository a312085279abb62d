from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# The same examples on every machine, however busy it is.
settings.register_profile(
    "stabdiag", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("stabdiag")

# pytest repeats whole messages in its summary where these are set, which the tests of our plugin count.
for name in ("CI", "BUILD_NUMBER"):
    os.environ.pop(name, None)
