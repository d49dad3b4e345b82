"""Trust checks: they probe a model and report reasons why its robust accuracy may be unreliable."""
