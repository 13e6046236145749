"""What people say of samples: files of verified labels, logs of a review."""
