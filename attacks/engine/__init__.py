"""The engine of all attacks: the attacked model, the state of a search, stop on success, verification."""
