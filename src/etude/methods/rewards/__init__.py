"""Methods whose rewards need no labels, and ones that make better use of labels."""
