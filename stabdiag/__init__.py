"""Stability diagnostics for PyTorch training.

with stabdiag.watch(model, optimizer) as run:
    ...
run.report()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stabdiag.api import compare_models, diagnose, load, report, watch

__version__ = "0.1.0"
__all__ = ["compare_models", "diagnose", "load", "report", "watch"]


def __getattr__(name: str) -> Any:
    # Lazy, so that `stabdiag --help` pays for none of torch, pandas and plotly.
    if name in __all__:
        from stabdiag import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load_ipython_extension(shell: Any) -> None:
    """What `%load_ext stabdiag` calls."""
    from stabdiag.adapters import ipython

    ipython.load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """What `%unload_ext stabdiag` calls."""
    from stabdiag.adapters import ipython

    ipython.unload(shell)
