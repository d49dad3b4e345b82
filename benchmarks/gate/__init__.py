"""The gate: keep a model's robustness in a baseline file, and fail a build if it got worse beyond chance."""
