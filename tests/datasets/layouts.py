"""Small pictures and masks to build dataset layouts from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from bench.video import RGB, Mask

SIZE = (24, 32)


def picture(seed: int, size: tuple[int, int] = SIZE) -> RGB:
    """A smooth picture, different for every seed."""
    y, x = np.mgrid[: size[0], : size[1]]
    channels = [(x * 7 + seed * 20) % 256, (y * 9 + seed * 5) % 256, (x + y + seed) % 256]
    return np.stack(channels, axis=-1).astype(np.uint8)


def write_jpeg(path: Path, seed: int = 0, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed, size)).save(path, quality=95)


def write_grey(path: Path, mask: Mask) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask, mode="L").save(path)


def square(value: int = 1, at: int = 4, size: tuple[int, int] = SIZE) -> Mask:
    mask = np.zeros(size, np.uint8)
    mask[4:12, at : at + 8] = value
    return mask
