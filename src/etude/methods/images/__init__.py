"""Methods whose policy draws pictures."""
