"""The gate: keep what a model's robustness was, and fail a build when it got worse beyond chance."""
