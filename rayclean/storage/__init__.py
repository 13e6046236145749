"""Where a run lies, how its files come to be, and who holds it."""
