"""Superpixels for SHLS: ISEC, SLIC and a grid; cutting them along masks; keeping them on disk.

A superpixel map is int32 ``(H, W)`` with the ids 1 .. N, each of which occurs.
"""

from methods.shls.superpixels.cache import SuperpixelCache, superpixels_parallel
from methods.shls.superpixels.isec import SuperpixelMap, isec, isec_float
from methods.shls.superpixels.settings import SuperpixelSettings
from methods.shls.superpixels.slic import grid, slic
from methods.shls.superpixels.split import majority_labels, split_by_mask

__all__ = [
    "SuperpixelCache",
    "SuperpixelMap",
    "SuperpixelSettings",
    "grid",
    "isec",
    "isec_float",
    "majority_labels",
    "slic",
    "split_by_mask",
    "superpixels_parallel",
]
