"""Coding agents as values: a folder of Python that runs in the jail, asks a model and acts on a repository through lines that the host serves, and edits its own code."""
