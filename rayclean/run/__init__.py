"""What `rayclean run` does: from a config to the jobs, in order, and what it leaves written about them."""
