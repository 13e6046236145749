"""`rayclean review`: a page on this machine where people decide on doubtful labels."""
