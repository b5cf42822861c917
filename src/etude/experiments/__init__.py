"""Experiments of claims: what no training run shows. Each is a function(seed, settings, budget) -> dict of floats; see `etude.evals.experiment`."""
