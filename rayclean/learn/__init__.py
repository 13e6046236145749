"""Training with the result: what is done once it is known which labels are likely right."""
