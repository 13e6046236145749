"""From a snapshot and the shards to features and logits of every row."""
