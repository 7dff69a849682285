"""Exact and fast metrics of video object segmentation, usable alone."""
