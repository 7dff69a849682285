"""Colours of methods: told apart by all readers, on both pages, and the same everywhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from fake_runs import COPY, MASKS, Maker
from numpy.typing import NDArray
from skimage.color import rgb2lab

from reports.combine import collect
from reports.drawing import COLOURS, HUES, MARKERS, Style, styles
from reports.page import TEMPLATES

PAGES = ("#ffffff", "#15181c")
"""Backgrounds of the light and the dark page."""

DEUTERANOPIA = np.array(
    [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]
)
"""Of linear RGB: Machado, Oliveira and Fernandes, TVCG 2009, severity 1."""


def rgb(colours: tuple[str, ...]) -> NDArray[np.float64]:
    """``(n, 3)`` in [0, 1]."""
    return np.array([[int(text[at : at + 2], 16) / 255 for at in (1, 3, 5)] for text in colours])


def linear(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def without_green(values: NDArray[np.float64]) -> NDArray[np.float64]:
    seen = np.clip(linear(values) @ DEUTERANOPIA.T, 0, 1)
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


def test_colours_are_told_apart() -> None:
    assert closest(rgb(COLOURS)) > 23
    assert closest(rgb(COLOURS[:HUES])) > 30
    assert closest(without_green(rgb(COLOURS[:HUES]))) > 15


def test_colours_stand_out_from_both_pages() -> None:
    for page in PAGES:
        ratios = contrast(rgb(COLOURS), rgb((page,)))
        assert ratios[:HUES].min() > 3, page
        assert ratios.min() > 1.8, page


def many(make_run: Maker, count: int) -> dict[str, Style]:
    methods = [replace(COPY, name=f"m{i:03}", title=f"M{i:03}") for i in range(count)]
    return styles(collect([make_run(f"run{count}", methods, masks=False, tables=False)]))


def test_sixteen_methods_have_a_colour_each(make_run: Maker) -> None:
    looks = list(many(make_run, 40).values())
    assert len({look.colour for look in looks[:16]}) == 16
    assert len({look.colour for look in looks[:8]} & set(COLOURS[:HUES])) == HUES
    assert len({(look.colour, look.marker) for look in looks}) == 40
    assert len({(look.colour, look.dash) for look in looks}) == 40
    assert {look.marker for look in looks} == set(MARKERS)


def test_colours_stay_from_report_to_report(make_run: Maker) -> None:
    """A method that comes before others in the alphabet takes no colour of theirs that is free."""
    both = styles(collect([make_run("one", [COPY, MASKS])]))
    extra = replace(COPY, name="a", title="A third")
    three = styles(collect([make_run("two", [extra, COPY, MASKS])]))
    assert {label: three[label] for label in both} == both
    assert both[COPY.title].colour != both[MASKS.title].colour


def test_substitutes_of_the_overlay_are_colours_of_the_report() -> None:
    script = (TEMPLATES / "masks.js").read_text()
    line = next(line for line in script.splitlines() if line.startswith("const SUBSTITUTES"))
    found = [part for part in line.split('"') if part.startswith("#")]
    assert len(set(found)) == 2
    assert set(found) <= set(COLOURS)
