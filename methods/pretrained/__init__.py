"""What class labels of still images buy, without any training on video.

- ``imagenet``: a larger encoder, as trained on ImageNet's classes.
- ``distilled``: what it learned, on the small encoder that all label regimes share.
"""

from methods.pretrained.distilled import DistilledImageNet
from methods.pretrained.imagenet import ImageNet

__all__ = ["DistilledImageNet", "ImageNet"]
