"""`python -m stabdiag`."""

from __future__ import annotations

from stabdiag.cli import main

if __name__ == "__main__":
    main()
