"""Datasets: one adapter per module; each registers itself and says how to get its files."""
