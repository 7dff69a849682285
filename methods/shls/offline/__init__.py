"""The offline stage: from still images to pseudo-sequences, without any human label (section 1).

``saliency`` finds the salient object of an image, ``base_labels`` makes objects of it,
``sequences`` moves and combines them into short videos with known masks, and ``contact_sheet``
draws some of them to look at: ``python -m methods.shls.offline --data ecssd --out sheet.png``.
"""

from methods.shls.offline.base_labels import base_labels
from methods.shls.offline.saliency import Saliency, SaliencySource, labels_used
from methods.shls.offline.sequences import PseudoSequences, SequenceSettings, Source, Sources

__all__ = [
    "PseudoSequences",
    "Saliency",
    "SaliencySource",
    "SequenceSettings",
    "Source",
    "Sources",
    "base_labels",
    "labels_used",
]
