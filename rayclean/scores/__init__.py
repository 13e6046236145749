"""One idea a file: what says that a given label is right."""
