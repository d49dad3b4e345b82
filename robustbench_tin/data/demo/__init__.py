"""The demo set: scenes that robust-tin draws itself, so that everything runs without a download."""
