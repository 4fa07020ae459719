"""Studies: planned as a whole, launched through Hydra, kept as run folders."""
