"""Show runs in trackers: MLflow and Weights & Biases."""
