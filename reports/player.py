"""What the page's player shows: frames, run-length encoded masks, scores of every frame."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from bench.video import Mask
from reports.footage import Footage, Track
from reports.looks import styles
from reports.overlays import OBJECT_COLOURS, webp
from reports.results import Results

FRAMES = 25
"""Frames of a sequence in the player, at most, besides those of its worst cases."""

QUALITY = 40
"""Of WebP: frames are a backdrop to masks. One of DAVIS takes 9 kB as text."""


def clip_data(results: Results, footage: Footage) -> dict[str, Any]:
    """A sequence as the script reads it.

    Frames are sent once, masks as :func:`encode_runs` writes them; scores are in per mille, for
    every scored frame, not only for the shown ones.
    """
    looks = styles(results)
    scored, scores = frame_scores(results, footage)
    methods = []
    for track in footage.tracks:
        mine = scores.get(track.info.label, {})
        look = looks[track.info.label]
        methods.append(
            {
                "label": track.info.label,
                "kind": look.kind,
                "colour": look.colour,
                "outline": look.outline,
                "masks": [None if mask is None else encode_runs(mask) for mask in track.masks],
                "reason": track.reason,
                "J": mine.get("J", []),
                "F": mine.get("F", []),
            }
        )
    height, width = footage.size
    return {
        "name": footage.name,
        "width": width,
        "height": height,
        "length": len(footage.names),
        "frames": [
            {
                "index": index,
                "name": footage.names[index],
                "image": None if image is None else webp(image, QUALITY),
                "truth": None if truth is None else encode_runs(truth),
            }
            for index, image, truth in zip(
                footage.picked, footage.images, footage.truth, strict=True
            )
        ],
        "scored": scored,
        "methods": methods,
        "objectColours": OBJECT_COLOURS,
    }


def as_script(data: Mapping[str, Any]) -> str:
    """JSON that may stand inside a ``script`` element."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def frame_scores(
    results: Results, footage: Footage
) -> tuple[list[int], dict[str, dict[str, list[int | None]]]]:
    """Mean J and F over objects of every scored frame, by method label and metric.

    Returns:
        The scored frames' indices, and values in per mille, aligned with them; None where a
        method has no score.
    """
    rows = footage.dataset.rows(results.scores)
    rows = rows[rows["sequence"] == footage.name]
    scored = sorted(int(index) for index in rows["frame"].unique())
    found = {}
    for track in footage.tracks:
        mine = _rows_of(rows, track)
        if len(mine):
            means = mine.groupby(["metric", "frame"])["value"].mean()
            found[track.info.label] = {
                metric: _per_mille(means.loc[metric].reindex(scored)) for metric in ("J", "F")
            }
    return scored, found


def encode_runs(mask: Mask) -> str:
    """Run-length encode ids, row by row.

    Each run is its id in one byte, then its length as a little-endian base-128 number whose bytes
    but the last have their highest bit set.

    Args:
        mask: uint8 ids ``(h, w)``.

    Returns:
        The bytes in base64.
    """
    flat = mask.reshape(-1)
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(np.append(starts, flat.size))
    out = bytearray()
    for value, length in zip(flat[starts].tolist(), lengths.tolist(), strict=True):
        out.append(value)
        while length >= 128:
            out.append(length & 127 | 128)
            length >>= 7
        out.append(length)
    return base64.b64encode(bytes(out)).decode("ascii")


def _rows_of(rows: pd.DataFrame, track: Track) -> pd.DataFrame:
    """The scores of the job whose masks are shown."""
    info = track.info
    mine = rows[(rows["method"] == info.method) & (rows["variant"] == info.variant)]
    return mine[mine["seed"] == track.seed]


def _per_mille(values: pd.Series) -> list[int | None]:
    return [None if np.isnan(value) else round(1000 * value) for value in values.tolist()]
