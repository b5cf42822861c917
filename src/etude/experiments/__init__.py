"""Experiments: what no training run shows. Claims call them as function(seed, settings, budget) -> dict of floats; `etude experiment` runs the studies among them."""
