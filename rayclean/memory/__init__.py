"""LabelScorer: the same scores and the same merge on arrays, without Ray or files."""
