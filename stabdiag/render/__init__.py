"""A run and its diagnosis, shown: terminal text, page, JSON, markdown, notebook."""
