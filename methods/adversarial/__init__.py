"""Adversarial adaptation of image segmentation networks to video: the method ``adv``.

After "Learning from labeled images and unlabeled videos for video segmentation" (ICLR 2023
submission). The paper's networks, equations and numbers are not public, so this is a reading of
its idea, not a reproduction. In reading order:

- ``settings``, ``adversary_settings``: the recipe of an adaptation, every axis of which can be
  ablated.
- ``networks``, ``taps``: 2D and 3D segmentation networks, and where features are taken.
- ``discriminator_layers``, ``discriminators``, ``judging``, ``losses``, ``penalty``, ``reversal``,
  ``disagreement``, ``readings``, ``games``: who tells images from video, and how that is played.
- ``clusters``: which features are compared with which; ``processes``: with those of all processes.
- ``domains``, ``material``, ``pseudo_masks``: images and videos, and whose labels are read.
- ``data``, ``augment``: both domains, made alike.
- ``passes``, ``supervision``, ``objectives``, ``flow``: what is learned without an opponent.
- ``adaptation``, ``training``: how it learns; ``checks``: what cannot; ``aligned_tap``,
  ``watches``, ``monitors``: how to see it.
- ``protocols``: how a trained network segments a video.
- ``method``: all of it under the harness.
"""

from methods.adversarial.method import Adversarial

__all__ = ["Adversarial"]
