"""Scores of many kinds become one probability a row, and the final table."""
