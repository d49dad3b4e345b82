"""How any attack is run: the attacked model, the state of a search, stopping on success, verification."""
