"""SHLS: superfeatures in a high-compressed latent space (Mendonça et al., BMVC 2023).

From still images to masks, in the order in which they are best read:

- ``superpixels``: ISEC and others.
- ``offline``: saliency without labels, and pseudo-sequences made of still images.
- ``network``: backbone, superpixel embedding, feature modulator, feature decoder; ``pooling``
  goes from pixels to superpixels and back.
- ``memory``: whose superpixel is it? Nearest neighbours and centroids, with their attention.
- ``regions``: where each object is looked for.
- ``segmentation``: one video, frame by frame.
- ``losses``, ``model``, ``training``: how it learns.
- ``method``: all of it under the harness.

Its way of learning on the encoder that all label regimes share is in :mod:`methods.superfeatures`.
"""

from methods.shls.method import SHLS

__all__ = ["SHLS"]
