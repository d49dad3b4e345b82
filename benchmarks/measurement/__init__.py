"""Measuring one model: clean, under attack, certified, on the images of other models."""
