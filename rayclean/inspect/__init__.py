"""Commands that look at a run, or at what one would cost, and start nothing."""
