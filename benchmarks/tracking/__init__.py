"""Runs shown in trackers: MLflow and Weights & Biases."""
