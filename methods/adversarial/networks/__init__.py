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
from methods.adversarial.networks.network import (
    Output,
    SegmentationNetwork,
    at_frame_size,
    build_network,
    output_maps,
)

__all__ = [
    "SIZES",
    "Output",
    "PerDomainBatchNorm",
    "SegmentationNetwork",
    "apply_mode",
    "at_frame_size",
    "build_network",
    "freeze_batch_norm",
    "merge_domains",
    "output_maps",
    "reestimate",
    "set_domain",
]
