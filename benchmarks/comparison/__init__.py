"""Compare two sets of cells: differences, significance tests and tables."""
