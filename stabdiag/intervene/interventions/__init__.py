"""One file each; the registry finds them by being here."""
