"""Scores of many kinds become one probability per row, and the final table."""
