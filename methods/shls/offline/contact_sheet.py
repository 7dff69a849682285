"""A sheet of pseudo-sequences to look at."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from bench.masks import overlay
from methods.shls.offline.sequences import PseudoSequences


def contact_sheet(sequences: PseudoSequences, count: int, path: Path) -> None:
    """Write a PNG with a row per sequence: its frames, then the same with their labels.

    Args:
        sequences: where rows come from; numbers 0 .. ``count`` - 1 are shown.
        count: rows.
        path: of the PNG.
    """
    rows = []
    for index in range(count):
        sequence = sequences[index]
        shown = [
            overlay(frame, labels)
            for frame, labels in zip(sequence.frames, sequence.labels, strict=True)
        ]
        rows.append(np.hstack([*sequence.frames, *shown]))
    cv2.imwrite(str(path), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))
