"""Benchmarks: ``python -m benchmarks.attacks``."""
