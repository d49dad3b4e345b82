"""Trust checks: reasons to doubt a figure, and the probe of a model that finds them."""
