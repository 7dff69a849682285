"""Segmentation networks with taps, for images and clips."""

from __future__ import annotations

from methods.adversarial.networks.architectures import SIZES
from methods.adversarial.networks.batch_norm import (
    PerDomainBatchNorm,
    apply_mode,
    freeze_batch_norm,
    merge_domains,
    reestimate,
    set_domain,
)
from methods.adversarial.networks.network import Output, SegmentationNetwork, build_network

__all__ = [
    "SIZES",
    "Output",
    "PerDomainBatchNorm",
    "SegmentationNetwork",
    "apply_mode",
    "build_network",
    "freeze_batch_norm",
    "merge_domains",
    "reestimate",
    "set_domain",
]
