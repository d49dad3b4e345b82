"""The report: one HTML file that shows runs, made from their stored results."""
