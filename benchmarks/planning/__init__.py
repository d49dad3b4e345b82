"""Turn the user's options into a complete, checked plan."""
