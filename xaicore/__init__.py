"""Attacks, attributions, metrics and records for the paper book "Attacks, Explained"."""

__version__ = "0.1.0"
