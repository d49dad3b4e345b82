"""One cell: its training, its measurements, and the time they take."""
