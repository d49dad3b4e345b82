"""The report: one HTML file that shows runs to people, made from their stored results."""
