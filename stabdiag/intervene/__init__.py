"""Fixes that can be applied while a script trains, without a change of it."""
