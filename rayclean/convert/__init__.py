"""Data sets in their usual layouts become shards: a file lists the samples of each layout, all are written alike."""
