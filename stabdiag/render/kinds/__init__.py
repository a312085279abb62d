"""One file a kind, or a few that belong together; `render.kind.KINDS` loads them all."""
