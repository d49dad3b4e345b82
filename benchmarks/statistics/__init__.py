"""Tests and intervals for accuracies: on the same images, and over seeds."""
