"""One file an optimizer whose state is known."""
