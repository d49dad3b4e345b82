"""Tests and confidence intervals for accuracies: on the same images, and over seeds."""
