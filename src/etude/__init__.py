"""Étude: a model practises on tasks, its attempts are judged, and the judgement changes it."""

__version__ = "0.1.0"
