"""One file a view; `render.view.VIEWS` loads them all."""
