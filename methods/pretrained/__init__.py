"""``imagenet``: what class labels of still images buy, without any training on video."""

from methods.pretrained.imagenet import ImageNet

__all__ = ["ImageNet"]
