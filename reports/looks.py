"""How methods look on the page and in figures: a hue per kind of label regime.

A method's hue says what labels its training consumed; its shade and its marker say which method of
that kind it is.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from reports.regimes import UNKNOWN, UNTRAINED
from reports.results import Results

SHADES: Mapping[str, tuple[str, ...]] = {
    UNTRAINED: ("#666666", "#868686", "#4B4B4B"),
    "image classes": ("#A928B1", "#D84AE0", "#810589"),
    "still images, no labels": ("#6FA061", "#8AC27A", "#467C3A"),
    "video, no labels": ("#2696FD", "#86B5FF", "#006DC5"),
    "labelled images": ("#E67400", "#FF9B4E", "#A95300"),
    "labelled images and video": ("#BF7DB7", "#E7A2DE", "#93548C"),
    "video masks": ("#CD0524", "#FF5C60", "#970217"),
    UNKNOWN: ("#919191",),
}
"""By kind of regime: its hue, then lighter and darker shades of it.

The seven hues have a contrast of 3 or more to white and to the dark page, and stay apart for people
who lack one of the three kinds of cones. Shades look more like their own hue than like any other
one. tests/reports/test_colours.py has the distances.
"""

OUTLINES: Mapping[str, str] = {
    "o": "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
    "s": "M-4-4H4V4H-4z",
    "^": "M0-5L5 4.5H-5z",
    "D": "M0-5.5L5.5 0L0 5.5L-5.5 0z",
    "v": "M0 5L5-4.5H-5z",
    "P": "M-1.8-5H1.8V-1.8H5V1.8H1.8V5H-1.8V1.8H-5V-1.8H-1.8z",
    "X": "M-5-2.5L-2.5-5L0-2.5L2.5-5L5-2.5L2.5 0L5 2.5L2.5 5L0 2.5L-2.5 5L-5 2.5L-2.5 0z",
    "*": "M0-5.6L1.5-1.9L5.4-1.7L2.4.7L3.4 4.5L0 2.4L-3.4 4.5L-2.4.7L-5.4-1.7L-1.5-1.9z",
    "<": "M-5 0L4.5-5V5z",
    ">": "M5 0L-4.5-5V5z",
}
"""Matplotlib's markers as SVG paths around the origin, within 6 units."""

MARKERS = tuple(OUTLINES)


@dataclass(frozen=True)
class Style:
    """How one method looks.

    Attributes:
        kind: of its label regime.
        colour: as ``"#RRGGBB"``, a shade of the kind's hue.
        marker: matplotlib's name.
    """

    kind: str
    colour: str
    marker: str

    @property
    def outline(self) -> str:
        """The marker as an SVG path."""
        return OUTLINES[self.marker]


def hue(kind: str) -> str:
    """The colour of a kind of label regime."""
    return SHADES[kind][0]


def styles(results: Results) -> dict[str, Style]:
    """A look per method label: the same in every figure, and in other reports where possible.

    Shade and marker follow from a checksum of the label, so the same name has the same look in
    every report. Where an earlier label of the same kind has both, the next free marker of that
    shade is taken, then one of another shade; the pair repeats only after 30 methods of a kind.
    """
    looks: dict[str, Style] = {}
    taken: dict[Style, int] = {}
    for info in results.methods.values():
        wanted = _preferred(info.label, info.regime_kind)
        # The least used, and of those the first.
        look = min(wanted, key=lambda each: taken.get(each, 0))
        taken[look] = taken.get(look, 0) + 1
        looks[info.label] = look
    return looks


def _preferred(label: str, kind: str) -> list[Style]:
    """All looks of a kind, in the order in which a label prefers them."""
    shades = SHADES[kind]
    turn, first = divmod(zlib.crc32(label.encode("utf-8")), len(shades))
    ordered = shades[first:] + shades[:first]
    start = turn % len(MARKERS)
    return [
        Style(kind, shade, marker)
        for shade in ordered
        for marker in MARKERS[start:] + MARKERS[:start]
    ]
