"""Harness of the label-regime benchmark for video object segmentation.

This package knows no method, no dataset and no plot by name; they reach it through
:mod:`bench.registry`. Importing it imports neither torch nor pandas.
"""

__version__ = "0.1.0"
