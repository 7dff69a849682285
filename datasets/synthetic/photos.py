"""The photographs behind the synthetic videos, and the objects cut out of them.

All of them ship inside wheels that the suite depends on (scikit-image and matplotlib), so nothing
is ever downloaded. Cut-outs are made when first needed: a polygon drawn by hand says roughly where
the object ends, GrabCut decides in a narrow band around it, and the colours near the edge are
replaced by the object's own, so that no fringe of the old background travels along.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.errors import DataError
from bench.video import RGB

Float = NDArray[np.float32]

FILES: dict[str, tuple[str, str]] = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "brick": ("skimage", "data/brick.png"),
    "camera": ("skimage", "data/camera.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "coins": ("skimage", "data/coins.png"),
    "grass": ("skimage", "data/grass.png"),
    "gravel": ("skimage", "data/gravel.png"),
    "ihc": ("skimage", "data/ihc.png"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "motorcycle_disparity": ("skimage", "data/motorcycle_disp.npz"),
    "retina": ("skimage", "data/retina.jpg"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "grace_hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
}
"""Photograph: (package, path inside the package)."""

Polygon = tuple[tuple[int, int], ...]
"""Corners (x, y) in pixels of the photograph."""


@dataclass(frozen=True)
class Cutout:
    """An object cut out of a photograph.

    Attributes:
        colour: float32 ``(H, W, 3)`` in [0, 255]; beyond the outline it repeats the object's own
            colours.
        alpha: float32 ``(H, W)`` in [0, 1], soft at the outline and 0 on the array's border,
            except at the bottom of a ``standing`` one.
        standing: the photograph ends at the object's lower edge (a bust), so that this edge has
            to stay below the frame.
    """

    colour: Float
    alpha: Float
    standing: bool


def photo_path(name: str) -> Path:
    """Where a photograph of :data:`FILES` lies; the package itself is not imported.

    Raises:
        DataError: its package is not installed, or came without the file.
    """
    package, inside = FILES[name]
    spec = importlib.util.find_spec(package)
    roots = list(spec.submodule_search_locations or []) if spec is not None else []
    for root in roots:
        path = Path(root) / inside
        if path.is_file():
            return path
    raise DataError(
        f"{package}/{inside}",
        "no such file in the installed packages",
        f"the photograph {name!r}, which the wheel of {package} ships",
        f"Install {package} again from its wheel: pip install --force-reinstall {package}.",
    )


@lru_cache(maxsize=len(FILES))
def photo(name: str) -> RGB:
    """One photograph, uint8 RGB ``(H, W, 3)``, read-only because it is shared.

    Raises:
        DataError: missing or unreadable.
    """
    path = photo_path(name)
    decoded = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    if decoded is None:
        raise DataError(path, "no readable image", "a PNG or JPEG", "Install its package again.")
    image = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(np.uint8)
    image.flags.writeable = False
    return image


def tinted(image: RGB, dark: tuple[int, int, int], light: tuple[int, int, int]) -> RGB:
    """Colour a grey photograph.

    Args:
        image: uint8 ``(H, W, 3)`` with equal channels.
        dark: RGB of its blackest pixels.
        light: RGB of its whitest pixels.

    Returns:
        uint8 ``(H, W, 3)``. The hue also follows the blurred brightness a little, because a
        single ramp of colours looks like a sepia print and not like a colour photograph.
    """
    grey = image[..., 0].astype(np.float32)
    low, high = np.percentile(grey, (1, 99))
    level = np.clip((grey - low) / (high - low), 0, 1)[..., None]
    out = np.float32(dark) + level * (np.float32(light) - np.float32(dark))
    broad = cv2.GaussianBlur(level[..., 0], (0, 0), 12)
    broad = (broad - broad.mean()) / (broad.std() + 1e-6)
    out *= 1 + broad[..., None] * np.float32([0.07, 0.0, -0.07])
    return np.clip(out, 0, 255).astype(np.uint8)


# --- outlines, in pixels of the photographs --------------------------------------------------

# fmt: off
ASTRONAUT: Polygon = (
    (18, 560), (22, 450), (18, 400), (22, 345), (35, 305), (48, 270), (75, 243), (118, 228),
    (113, 190), (122, 165), (150, 152), (182, 148), (178, 128), (160, 115), (153, 90), (157, 65),
    (170, 40), (195, 20), (225, 14), (260, 20), (285, 35), (300, 65), (300, 95), (293, 118),
    (275, 132), (265, 150), (262, 172), (285, 190), (303, 215), (305, 240), (340, 262), (355, 290),
    (362, 350), (405, 345), (455, 358), (480, 380), (495, 410), (500, 450), (508, 470), (510, 560),
)
SHUTTLE: Polygon = (
    (400, 4), (415, 0), (430, 4), (437, 24), (441, 45), (452, 56), (456, 130), (453, 185),
    (464, 232), (458, 262), (455, 278), (372, 280), (368, 240), (366, 226), (380, 180), (387, 130),
    (386, 90), (384, 48), (392, 40),
)
COFFEE: Polygon = (
    (78, 215), (85, 165), (108, 120), (145, 88), (175, 82), (174, 95), (182, 62), (206, 38),
    (250, 21), (300, 17), (350, 25), (385, 45), (402, 68), (412, 66), (424, 74), (421, 98),
    (440, 128), (464, 165), (477, 205), (479, 240), (469, 285), (445, 322), (405, 355), (350, 379),
    (300, 387), (245, 382), (190, 362), (145, 332), (110, 297), (88, 256),
)
CAT: Polygon = (
    (60, 32), (90, 12), (140, 5), (200, 3), (270, 4), (318, 10), (344, 34), (353, 75), (350, 130),
    (343, 172), (328, 212), (303, 248), (268, 279), (228, 279), (180, 268), (120, 254), (76, 226),
    (48, 180), (38, 122), (42, 70),
)
MOTORCYCLE: Polygon = (
    (84, 196), (138, 190), (134, 142), (170, 140), (190, 160), (250, 158), (325, 182), (350, 180),
    (326, 122), (372, 102), (405, 116), (425, 108), (462, 132), (466, 112), (495, 92), (520, 90),
    (535, 110), (560, 112), (586, 112), (586, 146), (564, 160), (570, 205), (582, 258), (640, 278),
    (650, 312), (676, 345), (692, 395), (680, 440), (655, 455), (600, 448), (545, 405), (512, 345),
    (490, 345), (460, 380), (350, 388), (348, 436), (318, 436), (322, 372), (290, 366), (268, 392),
    (215, 407), (160, 395), (122, 345), (112, 290), (128, 252), (100, 262), (86, 225),
)
REAR_TYRE: Polygon = ((128, 352), (150, 380), (175, 396), (205, 402), (240, 396), (268, 380),
                      (262, 360), (235, 376), (200, 382), (165, 368))
FRONT_TYRE: Polygon = ((545, 395), (580, 428), (615, 446), (648, 450), (672, 434), (682, 400),
                       (660, 400), (646, 424), (615, 424), (580, 400))
GRACE: Polygon = (
    (5, 660), (20, 510), (38, 430), (55, 388), (110, 365), (170, 345), (203, 318), (205, 302),
    (172, 292), (163, 262), (158, 220), (154, 185), (165, 150), (172, 128), (155, 108), (158, 90),
    (177, 84), (185, 60), (220, 30), (265, 22), (310, 30), (345, 55), (352, 85), (368, 95),
    (371, 140), (366, 180), (372, 210), (362, 255), (350, 290), (330, 312), (335, 332), (400, 358),
    (470, 388), (495, 420), (510, 470), (512, 660),
)
# fmt: on


# --- cutting out -----------------------------------------------------------------------------


def _filled(polygon: Polygon, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The inside of a polygon with its corners rounded: 1 in a uint8 ``(H, W)`` of zeros."""
    corners = np.array(polygon, np.float32)
    # Chaikin's corner cutting: every side is replaced by its middle half.
    for _ in range(2):
        following = np.roll(corners, -1, axis=0)
        pair = np.stack([0.75 * corners + 0.25 * following, 0.25 * corners + 0.75 * following], 1)
        corners = pair.reshape(-1, 2)
    inside = np.zeros(size, np.uint8)
    cv2.fillPoly(inside, [corners.round().astype(np.int32)], 1)
    return inside


def _disk(radius: int) -> NDArray[np.uint8]:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def _refined(image: RGB, inside: NDArray[np.uint8], band: int) -> NDArray[np.uint8]:
    """Let GrabCut move an outline by at most ``band`` pixels; 0/1 uint8 ``(H, W)``."""
    # The border is replicated, so that an object cut by the photograph is not eroded there.
    sure = cv2.erode(inside, _disk(band), borderType=cv2.BORDER_REPLICATE)
    maybe = cv2.dilate(inside, _disk(band))
    labels = np.where(inside > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[sure > 0] = cv2.GC_FGD
    labels[maybe == 0] = cv2.GC_BGD
    # GrabCut starts its colour models from k-means, which draws from OpenCV's own generator.
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(np.ascontiguousarray(image), labels, None, *models, 3, cv2.GC_INIT_WITH_MASK)
    found = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    found = cv2.morphologyEx(found, cv2.MORPH_OPEN, _disk(2))
    # Only the largest piece is the object; what else GrabCut liked is background alike in colour.
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(found)
    return (pieces == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)


def _cut(image: RGB, inside: NDArray[np.uint8], standing: bool = False) -> Cutout:
    """Crop an object, soften its outline and clean the colours along it.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        inside: 0/1 uint8 ``(H, W)``.
        standing: the object ends at the photograph's lower edge.
    """
    pad = 6
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    window = (
        slice(int(rows[0]), int(rows[-1]) + 1),
        slice(int(columns[0]), int(columns[-1]) + 1),
    )
    below = 0 if standing else pad
    edges = (pad, below, pad, pad)
    colour = cv2.copyMakeBorder(image[window], *edges, cv2.BORDER_REPLICATE).astype(np.float32)
    hard = cv2.copyMakeBorder(inside[window], *edges, cv2.BORDER_CONSTANT, value=0)
    # One pixel is given up all round: it mixes object and background.
    core = cv2.erode(hard, _disk(1), borderType=cv2.BORDER_REPLICATE).astype(np.float32)
    pure = cv2.erode(hard, _disk(3), borderType=cv2.BORDER_REPLICATE).astype(np.float32)
    alpha = cv2.GaussianBlur(core, (0, 0), 0.9, borderType=cv2.BORDER_REPLICATE)
    near = cv2.GaussianBlur(pure, (0, 0), 3)[..., None]
    spread = cv2.GaussianBlur(colour * pure[..., None], (0, 0), 3) / np.maximum(near, 1e-4)
    fringe = (core == 0)[..., None] & (near > 1e-4)
    colour = np.where(fringe, spread, colour).astype(np.float32)
    return Cutout(np.clip(colour, 0, 255), alpha.astype(np.float32), standing)


def _by_outline(name: str, polygon: Polygon, band: int, standing: bool) -> Cutout:
    image = photo(name)
    inside = _filled(polygon, image.shape[:2])
    return _cut(image, _refined(image, inside, band) if band else inside, standing)


def _motorcycle() -> Cutout:
    """The motorcycle, told from garage and floor by the photograph's measured disparity."""
    image = photo("motorcycle")
    with np.load(photo_path("motorcycle_disparity")) as archive:
        disparity = archive["arr_0"]
    # Disparity (pixels) of the floor by row, and a wall that is nowhere nearer than 28.
    row = np.arange(image.shape[0], dtype=np.float32)[:, None]
    behind = np.maximum(28, 27 + 0.1755 * (row - 325) + 1.5)
    near = (np.isfinite(disparity) & (disparity > behind)).astype(np.uint8)
    near &= _filled(MOTORCYCLE, image.shape[:2])
    # Tyres are as near as the floor where they touch it.
    for tyre in (REAR_TYRE, FRONT_TYRE):
        near |= _filled(tyre, image.shape[:2])
    near = cv2.morphologyEx(near, cv2.MORPH_CLOSE, _disk(4))
    near = cv2.morphologyEx(near, cv2.MORPH_OPEN, _disk(2))
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(near)
    return _cut(image, (pieces == 1 + int(np.argmax(stats[1:, 4]))).astype(np.uint8))


def _coin(column: int, row: int, radius: int, light: tuple[int, int, int]) -> Cutout:
    """The coin around a point of the photograph, three times as large and of a metal's colour."""
    grey = photo("coins")
    window = slice(row - radius, row + radius), slice(column - radius, column + radius)
    metal = tinted(grey, (26, 20, 14), light)[window]
    large = cv2.resize(metal, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    level = cv2.GaussianBlur(
        cv2.resize(grey[window][..., 0], None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC), (0, 0), 3
    )
    _, bright = cv2.threshold(level, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    _, pieces = cv2.connectedComponents(cv2.morphologyEx(bright, cv2.MORPH_CLOSE, _disk(7)))
    middle = pieces == pieces[level.shape[0] // 2, level.shape[1] // 2]
    outline, _ = cv2.findContours(middle.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.convexHull(max(outline, key=cv2.contourArea))
    inside = cv2.fillPoly(np.zeros(level.shape, np.uint8), [hull], 1)
    # Two pixels of the enlarged photograph are the coin's shadow.
    return _cut(large, cv2.erode(inside, _disk(2)))


def _patch(name: str, corner: tuple[int, int], side: int, seed: int) -> Cutout:
    """A blob with bays, cut from a photograph's texture.

    Args:
        name: photograph.
        corner: (x, y) of the square it is cut from, in pixels.
        side: of that square, in pixels.
        seed: draws the outline.
    """
    rng = np.random.default_rng(seed)
    angle = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    radius = np.ones_like(angle)
    for wave in range(2, 7):
        radius += rng.normal(0, 0.42 / wave) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    radius = np.clip(radius, 0.45, None)
    radius *= 0.47 * side / radius.max()
    x, y = corner
    polygon = np.stack([np.cos(angle), np.sin(angle)], -1) * radius[:, None] + side / 2
    inside = cv2.fillPoly(np.zeros((side, side), np.uint8), [polygon.round().astype(np.int32)], 1)
    return _cut(photo(name)[y : y + side, x : x + side], inside)


SILVER, GOLD, COPPER = (226, 228, 232), (250, 214, 120), (226, 150, 104)

CUTOUTS: dict[str, Callable[[], Cutout]] = {
    "astronaut": lambda: _by_outline("astronaut", ASTRONAUT, 7, True),
    "cat": lambda: _by_outline("chelsea", CAT, 0, False),
    "coffee": lambda: _by_outline("coffee", COFFEE, 3, False),
    "motorcycle": _motorcycle,
    "shuttle": lambda: _by_outline("astronaut", SHUTTLE, 5, False),
    "flag": lambda: _patch("astronaut", (0, 62), 92, 5),
    "admiral": lambda: _by_outline("grace_hopper", GRACE, 6, True),
    "gold-coin": lambda: _coin(338, 44, 36, GOLD),
    "silver-coin": lambda: _coin(214, 190, 31, SILVER),
    "copper-coin": lambda: _coin(264, 119, 30, COPPER),
    "tissue": lambda: _patch("ihc", (0, 0), 300, 2),
    "retina": lambda: _patch("retina", (150, 300), 800, 5),
}
"""Cut-out: what makes it."""

CUTOUT_PHOTOS: dict[str, tuple[str, ...]] = {
    "astronaut": ("astronaut",),
    "cat": ("chelsea",),
    "coffee": ("coffee",),
    "motorcycle": ("motorcycle", "motorcycle_disparity"),
    "shuttle": ("astronaut",),
    "flag": ("astronaut",),
    "admiral": ("grace_hopper",),
    "gold-coin": ("coins",),
    "silver-coin": ("coins",),
    "copper-coin": ("coins",),
    "tissue": ("ihc",),
    "retina": ("retina",),
}
"""Cut-out: the photographs it is made of."""


@lru_cache(maxsize=len(CUTOUTS))
def cutout(name: str) -> Cutout:
    """A cut-out of :data:`CUTOUTS`; its arrays are shared and read-only."""
    made = CUTOUTS[name]()
    made.colour.flags.writeable = False
    made.alpha.flags.writeable = False
    return made


BACKGROUNDS: dict[str, tuple[str, tuple[int, int, int] | None, tuple[int, int, int] | None]] = {
    "brick": ("brick", (70, 40, 32), (214, 170, 150)),
    "garage": ("motorcycle", None, None),
    "grass": ("grass", (18, 34, 10), (178, 206, 118)),
    "table": ("coffee", None, None),
    "field": ("camera", (16, 22, 28), (226, 228, 222)),
    "gravel": ("gravel", (36, 32, 30), (214, 202, 188)),
    "launchpad": ("rocket", None, None),
}
"""Background: its photograph, and the darkest and lightest colour for a grey one."""


@lru_cache(maxsize=len(BACKGROUNDS))
def background(name: str) -> RGB:
    """A background of :data:`BACKGROUNDS`, uint8 RGB ``(H, W, 3)``, shared and read-only."""
    source, dark, light = BACKGROUNDS[name]
    image = photo(source)
    if dark is not None and light is not None:
        image = tinted(image, dark, light)
        image.flags.writeable = False
    return image
