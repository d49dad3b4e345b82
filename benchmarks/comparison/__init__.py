"""Two sets of cells beside each other: differences, tests and their tables."""
