"""Label propagation: labels of remembered frames are copied to the next frame along affinities.

One propagator serves every method that matches features. What differs between systems is
:class:`PropagationSettings`; its defaults are those of CRW (Jabri et al., Space-Time
Correspondence as a Contrastive Random Walk, NeurIPS 2020, appendix "label propagation").

The affinity of a cell does not depend on labels, so any number of label channels costs one search.
In reading order: ``settings`` (what differs), ``memory`` (what is remembered), ``matching`` (the
search), ``distant`` (the search in two steps), ``regions`` (labels kept inside boxes),
``propagator`` (the recursion), ``labels`` (masks to the grid and back).
"""

from bench.propagation.labels import labels_from_channels, labels_from_mask, resize, stretch
from bench.propagation.memory import Affinity, Memory, copy_labels
from bench.propagation.propagator import Propagator
from bench.propagation.regions import Regions
from bench.propagation.settings import PropagationSettings

__all__ = [
    "Affinity",
    "Memory",
    "PropagationSettings",
    "Propagator",
    "Regions",
    "copy_labels",
    "labels_from_channels",
    "labels_from_mask",
    "resize",
    "stretch",
]
