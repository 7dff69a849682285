"""What a domain factor does to a sample, in numbers: sharpness, light, noise, framing.

The statistics with which Kalogeiton, Ferrari and Schmid, Analysing domain shift factors between
videos and images for object detection, TPAMI 2016, compare domains, carried over from boxes to
masks. A sample is a labelled image; a video gives one frame as a sample, because frames of one
video repeat each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from bench.video import RGB, VOID, LabelledImage, Mask

Float = NDArray[np.float64]


@dataclass(frozen=True)
class SampleStatistics:
    """What the factors do to a sample, in numbers. NaN where a sample shows no object.

    Luma is that of the code values in [0, 1]. All objects of a sample count as one.

    Attributes:
        gradient_energy: mean squared gradient of luma per pixel, in the object's box.
        laplacian_variance: variance of the Laplacian of luma over the frame.
        mean_luma: over the frame.
        noise_sigma: standard deviation of the noise in luma (Immerkær, Fast Noise Variance
            Estimation, 1996); fine texture counts as noise.
        centroid_x: of the object, as a share of the frame's width.
        centroid_y: of the object, as a share of the frame's height.
        offset: of the centroid from the frame's centre, in frames (width and height count 1).
        area: of the object, as a share of the frame.
        height: of the object's box, as a share of the frame.
        truncation: share of the object's outline that lies on the frame's border.
    """

    gradient_energy: float
    laplacian_variance: float
    mean_luma: float
    noise_sigma: float
    centroid_x: float
    centroid_y: float
    offset: float
    area: float
    height: float
    truncation: float


STATISTICS = tuple(SampleStatistics.__dataclass_fields__)
FRAMING = ("centroid_x", "centroid_y", "area", "truncation")
"""The statistics that say how the frame shows the object."""


def _luma(image: RGB) -> Float:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64) / 255


def _object(mask: Mask | None, image: RGB) -> NDArray[np.bool_]:
    if mask is None:
        return np.zeros(image.shape[:2], bool)
    found: NDArray[np.bool_] = (mask != 0) & (mask != VOID)
    return found


def _box(found: NDArray[np.bool_]) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def gradient_energy(image: RGB, mask: Mask | None) -> float:
    """Mean squared gradient of luma in the object's box, by central differences; NaN without one.

    The gradient is taken in the frame, so that the box's edges add nothing.
    """
    found = _object(mask, image)
    if not found.any():
        return float("nan")
    down, across = np.gradient(_luma(image))
    energy = np.asarray(down**2 + across**2)
    return float(energy[_box(found)].mean())


def mean_luma(image: RGB) -> float:
    """Mean luma of the code values, in [0, 1]."""
    return float(_luma(image).mean())


def noise_sigma(image: RGB) -> float:
    """Standard deviation of the noise in luma, by Immerkær's mask, which ignores planes."""
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float64)
    response = cv2.filter2D(_luma(image), -1, kernel)[1:-1, 1:-1]
    # The mask's norm is 6; a Gaussian's mean magnitude is sqrt(2 / pi) of its deviation.
    return float(np.sqrt(np.pi / 2) * np.abs(response).mean() / 6)


def truncation(found: NDArray[np.bool_]) -> float:
    """Share of an object's outline that lies on the frame's border; NaN without an object.

    Args:
        found: bool ``(H, W)``. The outline counts the sides of pixels.
    """
    padded = np.pad(found, 1).astype(np.int8)
    outline = np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum()
    on_border = found[0].sum() + found[-1].sum() + found[:, 0].sum() + found[:, -1].sum()
    return float(on_border / outline) if outline else float("nan")


def sample_statistics(image: RGB, mask: Mask | None) -> SampleStatistics:
    """All statistics of one sample.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        mask: uint8 ids ``(H, W)``, or None.
    """
    found = _object(mask, image)
    x = y = area = height = float("nan")
    if found.any():
        ys, xs = np.nonzero(found)
        x, y = (xs.mean() + 0.5) / found.shape[1], (ys.mean() + 0.5) / found.shape[0]
        area, height = found.mean(), (ys.max() - ys.min() + 1) / found.shape[0]
    return SampleStatistics(
        gradient_energy=gradient_energy(image, mask),
        laplacian_variance=float(cv2.Laplacian(_luma(image), cv2.CV_64F).var()),
        mean_luma=mean_luma(image),
        noise_sigma=noise_sigma(image),
        centroid_x=float(x),
        centroid_y=float(y),
        offset=float(np.hypot(x - 0.5, y - 0.5)),
        area=float(area),
        height=float(height),
        truncation=truncation(found),
    )


def statistics_frame(samples: Iterable[LabelledImage]) -> pd.DataFrame:
    """Statistics of many samples: one row each, indexed by name, columns :data:`STATISTICS`."""
    names, rows = [], []
    for one in samples:
        names.append(one.name)
        rows.append(asdict(sample_statistics(one.image, one.mask)))
    return pd.DataFrame(rows, index=names, columns=list(STATISTICS))


def compare_statistics(images: pd.DataFrame, videos: pd.DataFrame) -> pd.DataFrame:
    """How far two domains differ, statistic by statistic.

    Args:
        images: of :func:`statistics_frame`.
        videos: the same for one frame of each video.

    Returns:
        Index statistic; columns ``images`` and ``videos`` (medians), ``distance`` and ``p_value``
        of the two-sample Kolmogorov-Smirnov test. NaN samples are left out.
    """
    rows = {}
    for name in images.columns:
        ours, theirs = images[name].dropna(), videos[name].dropna()
        test = ks_2samp(ours, theirs)
        rows[name] = (ours.median(), theirs.median(), test.statistic, test.pvalue)
    columns = ["images", "videos", "distance", "p_value"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)
