"""Points of embedding plots: objects and backgrounds of both domains in the plane."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bench.gap.classes import class_silhouette
from bench.gap.embedding import PROJECTIONS, absent_projections, embed
from bench.gap.features import CLASSES, Features, both_domains, group_names
from bench.gap.measures import Row, estimate_row, purity


def embedding_rows(
    images: Features, videos: Features, tap: str, seed: int
) -> Iterator[tuple[str, Row]]:
    """Every sample as two points, the means over its foreground and over its background.

    Purity and silhouette are measured on the same points before the projection; points of the
    same sample do not count as neighbours.

    Yields:
        ``"embedding"`` and a point, or ``"embedding_figures"`` and a figure under the plot.
    """
    both, domain = both_domains(images.taps[tap].objects, videos.taps[tap].objects)
    names = np.array(list(group_names(images, videos)))
    sample, classes = np.nonzero(np.isfinite(both[:, :, 0]))
    features, domains = both[sample, classes], domain[sample]
    mixed = purity(features, domains, names[sample], seed)
    silhouette = class_silhouette(features, classes, names[sample], seed=seed)
    yield "embedding_figures", {"tap": tap, "measure": "domain_purity", **estimate_row(mixed)}
    yield (
        "embedding_figures",
        {"tap": tap, "measure": "class_silhouette", **estimate_row(silhouette), "images": np.nan},
    )
    # A sample's two points are drawn both; as groups of their own none is left out.
    points = np.array([f"{names[i]} {c}" for i, c in zip(sample, classes, strict=True)])
    for projection in PROJECTIONS:
        if projection in absent_projections():
            continue
        drawn = embed(features, domains, classes, points, projection=projection, seed=seed)
        yield from (
            ("embedding", row) for row in _points(drawn.points, names[sample], tap, projection)
        )


def _points(
    table: pd.DataFrame, names: np.ndarray[tuple[int], np.dtype[np.str_]], tap: str, projection: str
) -> Iterator[Row]:
    for point in table.itertuples(index=False):
        x, y, domain, label, row = point
        yield {
            "tap": tap,
            "projection": projection,
            "domain": ("images", "videos")[int(domain)],
            "class": CLASSES[int(label)],
            "sample": names[int(row)].partition(" ")[2],
            "x": x,
            "y": y,
        }
