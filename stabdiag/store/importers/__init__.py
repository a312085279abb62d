"""Formats of other tools' logs, one file each, found by being here."""
