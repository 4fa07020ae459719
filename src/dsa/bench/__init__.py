"""Measured speed and memory, against dense attention and against peers: `python -m dsa.bench`."""
