"""One file a way of drawing; `render.view.VIEWS` loads them all."""
