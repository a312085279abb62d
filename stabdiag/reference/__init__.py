"""The bundled language model and its trainer: an ordinary PyTorch script that knows nothing of stabdiag."""
