"""Shards to rows: labels, truth kept apart, and what was put aside and why."""
