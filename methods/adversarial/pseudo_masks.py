"""Pseudo-masks of images: what a saliency detector finds, so that no person has drawn anything.

The detector is the one that SHLS is trained with by default, made without labels, with its clean-up
and its cache by the images' content.
"""

from __future__ import annotations

import numpy as np

from bench.video import LabelledImage
from methods.adversarial.material import Images
from methods.clips import resize_short_side
from methods.shls.offline import DEFAULT_SOURCE, SaliencyMaps
from methods.shls.training import CACHE

DETECTOR = DEFAULT_SOURCE


class PseudoMasked:
    """Images with pseudo-masks in the place of their own, which are not looked at.

    Args:
        images: all there are.
        short_side: to which images are scaled before anything is detected; None keeps them.
        maps: where saliency comes from.
    """

    def __init__(
        self, images: Images, short_side: int | None, maps: SaliencyMaps | None = None
    ) -> None:
        self.images = images
        self.short_side = short_side
        self.maps = SaliencyMaps(DETECTOR, cache=CACHE) if maps is None else maps

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> LabelledImage:
        """One image, scaled; its mask is 1 where something is salient, else 0."""
        one = self.images[index]
        image = one.image
        if self.short_side is not None:
            image = resize_short_side(image, self.short_side)
        unlabelled = LabelledImage(one.name, image, None)
        salient = self.maps.of(unlabelled) > 0
        return LabelledImage(one.name, image, salient.astype(np.uint8))
