"""One idea per file: what says that a given label is right."""
