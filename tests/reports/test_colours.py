"""Colours of methods: told apart by all readers, on both pages, and the same everywhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from fake_runs import COPY, MASKS, Maker
from numpy.typing import NDArray
from skimage.color import rgb2lab

from bench.method import LabelRegime
from reports.combine import collect
from reports.drawing import COLOURS
from reports.looks import MARKERS, OUTLINES, SHADES, Style, hue, styles
from reports.page import TEMPLATES
from reports.regimes import KINDS, UNKNOWN

PAGES = ("#ffffff", "#15181c")
"""Backgrounds of the light and the dark page."""

KINDS_SHOWN = tuple(kind for kind in KINDS if kind != UNKNOWN)
"""Those that methods with scores can have."""

DEFICIENCIES = {
    "no green": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "no red": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no blue": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
"""Of linear RGB: Machado, Oliveira and Fernandes, TVCG 2009, severity 1."""

FIRST = 8
"""Of the colours of a measured gap, those that are used first."""


def rgb(colours: tuple[str, ...]) -> NDArray[np.float64]:
    """``(n, 3)`` in [0, 1]."""
    return np.array([[int(text[at : at + 2], 16) / 255 for at in (1, 3, 5)] for text in colours])


def linear(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def seen_by(values: NDArray[np.float64], deficiency: str) -> NDArray[np.float64]:
    seen = np.clip(linear(values) @ np.array(DEFICIENCIES[deficiency]).T, 0, 1)
    return np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)


def closest(values: NDArray[np.float64]) -> float:
    """Least CIE76 distance between two of some colours; just noticeable is about 2.3."""
    lab = rgb2lab(values[None])[0]
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    return float(distances[np.triu_indices(len(lab), 1)].min())


def contrast(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.array([0.2126, 0.7152, 0.0722])
    lights = np.stack(np.broadcast_arrays(linear(first) @ weights, linear(second) @ weights))
    ratio: NDArray[np.float64] = (lights.max(0) + 0.05) / (lights.min(0) + 0.05)
    return ratio


def test_every_kind_has_a_hue_of_its_own() -> None:
    hues = rgb(tuple(hue(kind) for kind in KINDS_SHOWN))
    assert len(hues) == 7
    assert closest(hues) > 40
    for deficiency in DEFICIENCIES:
        assert closest(seen_by(hues, deficiency)) > 22, deficiency


def test_colours_stand_out_from_both_pages() -> None:
    for page in PAGES:
        hues = rgb(tuple(hue(kind) for kind in KINDS))
        assert contrast(hues, rgb((page,))).min() >= 3, page
        shades = rgb(tuple(shade for kind in KINDS for shade in SHADES[kind]))
        assert contrast(shades, rgb((page,))).min() > 1.9, page


def test_shades_look_like_their_own_hue() -> None:
    hues = rgb2lab(rgb(tuple(hue(kind) for kind in KINDS_SHOWN))[None])[0]
    for place, kind in enumerate(KINDS_SHOWN):
        shades = rgb2lab(rgb(SHADES[kind])[None])[0]
        distances = np.linalg.norm(shades[:, None] - hues[None], axis=-1)
        assert (distances.argmin(axis=1) == place).all(), kind
        assert closest(rgb(SHADES[kind])) > 11, kind


def test_colours_of_a_gap_are_told_apart() -> None:
    first = rgb(COLOURS[:FIRST])
    assert closest(rgb(COLOURS)) > 23
    assert closest(first) > 30
    assert closest(seen_by(first, "no green")) > 15
    for page in PAGES:
        ratios = contrast(rgb(COLOURS), rgb((page,)))
        assert ratios[:FIRST].min() > 3, page
        assert ratios.min() > 1.8, page


UNTRAINED = LabelRegime()


def many(make_run: Maker, count: int, regime: LabelRegime = UNTRAINED) -> dict[str, Style]:
    methods = [
        replace(MASKS, name=f"m{i:03}", title=f"M{i:03}", regime=regime) for i in range(count)
    ]
    return styles(collect([make_run(f"run{count}", methods, masks=False, tables=False)]))


def test_thirty_methods_of_a_kind_have_a_look_each(make_run: Maker) -> None:
    looks = list(many(make_run, 40, LabelRegime(video_hours=1)).values())
    assert {look.kind for look in looks} == {"video, no labels"}
    assert {look.colour for look in looks} == set(SHADES["video, no labels"])
    assert len(set(looks[:30])) == 30
    assert {look.marker for look in looks} == set(MARKERS)
    assert max(looks.count(look) for look in looks) == 2


def test_looks_stay_from_report_to_report(make_run: Maker) -> None:
    """A method's colour does not depend on which others are there, few or many."""
    both = styles(collect([make_run("one", [COPY, MASKS])]))
    extra = replace(COPY, name="a", title="A third")
    three = styles(collect([make_run("two", [extra, COPY, MASKS])]))
    assert {label: three[label] for label in both} == both
    assert both[COPY.title].colour != both[MASKS.title].colour
    few, more = many(make_run, 4), many(make_run, 14)
    assert {label: more[label].colour for label in few} == {
        label: look.colour for label, look in few.items()
    }
    assert len(set(more.values())) == 14


def test_hues_follow_the_labels(make_run: Maker) -> None:
    """The same name on other labels has another hue."""
    assert {look.colour for look in many(make_run, 5).values()} <= set(SHADES["no training"])
    masks = many(make_run, 6, LabelRegime(video_masks=3))
    assert {look.colour for look in masks.values()} <= set(SHADES["video masks"])


def test_markers_of_the_page_are_those_of_the_figures() -> None:
    from matplotlib.markers import MarkerStyle

    assert set(OUTLINES) <= set(MarkerStyle.markers)
    assert len(set(OUTLINES.values())) == len(OUTLINES)


def test_substitutes_of_the_overlay_are_colours_of_the_report() -> None:
    script = (TEMPLATES / "masks.js").read_text()
    line = next(line for line in script.splitlines() if line.startswith("const SUBSTITUTES"))
    found = [part for part in line.split('"') if part.startswith("#")]
    assert len(set(found)) == 2
    assert set(found) <= set(COLOURS)
