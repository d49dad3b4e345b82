"""Training: one loop, the hooks with which a defense changes it, and its record."""
