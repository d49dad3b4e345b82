"""Variants of a model that search faster: equivalent copies, and how one is chosen and held to the model."""
