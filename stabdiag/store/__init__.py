"""The run directory: made, written, read, and followed while it grows."""
