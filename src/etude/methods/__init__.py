"""One file per method, by family. A file's name is its method's slug; nothing below this room imports from it."""
