"""From embeddings to lists of nearest rows, with the same label and of any label."""
