"""One file an architecture, each with data of its own kind."""
