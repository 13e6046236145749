"""What a finished run is worth, where the truth is known."""
