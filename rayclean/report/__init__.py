"""The pages of a run: numbers, rows, curves, and what can be said of them in text."""
