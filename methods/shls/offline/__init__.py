"""The offline stage: from still images to pseudo-sequences, without any human label (section 1).

In the order of the data:

- ``saliency``: what stands out in an image, by the detectors ``robust_background`` and
  ``minimum_barrier``, from a folder, or by the dataset's masks.
- ``base_labels``: objects of a saliency map.
- ``sources``: images and their maps, read once.
- ``sequences``: short videos with known masks, made of them.
- ``contact_sheet``: some of those to look at, also by
  ``python -m methods.shls.offline --data ecssd --out sheet.png``.
"""

from methods.shls.offline.base_labels import base_labels
from methods.shls.offline.saliency import (
    DEFAULT_SOURCE,
    Saliency,
    SaliencyMaps,
    SaliencySource,
    labels_used,
)
from methods.shls.offline.sequences import PseudoSequence, PseudoSequences, SequenceSettings
from methods.shls.offline.sources import Source, Sources

__all__ = [
    "DEFAULT_SOURCE",
    "PseudoSequence",
    "PseudoSequences",
    "Saliency",
    "SaliencyMaps",
    "SaliencySource",
    "SequenceSettings",
    "Source",
    "Sources",
    "base_labels",
    "labels_used",
]
