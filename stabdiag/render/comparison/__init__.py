"""A comparison of two runs: terminal, JSON, markdown, page."""
