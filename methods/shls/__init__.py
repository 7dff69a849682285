"""SHLS."""
