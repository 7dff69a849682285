"""CycleTime's spatial transformer: where in a frame a patch is, as an affine crop of the frame.

Source: Wang, Jabri, Efros: Learning correspondence from the cycle-consistency of time, CVPR 2019,
section 3.2; the affine sampler is that of Jaderberg et al., Spatial transformer networks, NeurIPS
2015; the inlier score that of Rocco, Arandjelovic, Sivic, End-to-end weakly-supervised semantic
alignment, CVPR 2018.

A theta ``(B, 2, 3)`` maps coordinates of the crop, in [-1, 1], to coordinates of the frame, x
before y. The corners -1 and 1 are the *centres* of the outermost pixels (``align_corners=True``),
as they were in torch when the system was published.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import ConfigError
from methods.correspondence.pretext.copying import global_affinity

GRID_POINTS = 20
"""Points in each direction of the grid on which two transforms are compared."""

TINY = 1e-8


def similarity_transform(shift: Tensor, angle: Tensor, scale: float) -> Tensor:
    """Affine matrices that shrink, rotate and shift.

    Args:
        shift: ``(B, 2)``, x and y in the frame's coordinates.
        angle: ``(B,)`` in radians.
        scale: side of the crop as a share of the frame's.

    Returns:
        theta, ``(B, 2, 3)``.
    """
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    rows = [
        torch.stack([cosine, -sine, shift[:, 0]], 1),
        torch.stack([sine, cosine, shift[:, 1]], 1),
    ]
    return torch.stack(rows, 1)


def affine_points(theta: Tensor, side: int, offset_factor: float = 1.0) -> Tensor:
    """Where the cells of a square crop lie in the frame.

    Args:
        theta: ``(B, 2, 3)``.
        side: cells of the crop in each direction.
        offset_factor: points are divided by it before, and multiplied after the affine map, so
            that it scales the shift alone.

    Returns:
        ``(B, side, side, 2)``, x before y.
    """
    grid = F.affine_grid(theta, [len(theta), 1, side, side], align_corners=True)
    shift = theta[:, None, None, :, 2]
    return grid + (offset_factor - 1) * shift


def crop(maps: Tensor, theta: Tensor, side: int, offset_factor: float = 1.0) -> Tensor:
    """Sample a square crop bilinearly; zeros where it leaves the frame.

    Args:
        maps: ``(B, C, h, w)``.
        theta: ``(B, 2, 3)``.
        side: of the crop in pixels or cells.
        offset_factor: see :func:`affine_points`.

    Returns:
        ``(B, C, side, side)``.
    """
    points = affine_points(theta, side, offset_factor)
    return F.grid_sample(maps, points.to(maps.dtype), align_corners=True)


def correlation(frame: Tensor, template: Tensor, temperature: float) -> Tensor:
    """Where each of a template's cells is in the frame, as probabilities over the frame's cells.

    Args:
        frame: unit vectors ``(B, C, h, w)``.
        template: unit vectors ``(B, C, s, s)``.
        temperature: divides the dot products.

    Returns:
        ``(B, h * w, s, s)``, the sum over the second dimension being 1.
    """
    return F.softmax(global_affinity(template, frame, 1 / temperature), dim=1)


class Localiser(nn.Module):
    """Regresses shift and angle of a template from its correlation with a frame.

    Two unpadded convolutions with leaky ReLU, then a linear layer; no bias in the convolutions.

    Args:
        cells: of the frame, the correlation's channels.
        side: of the template in cells.
        kernel: of both convolutions; smaller templates need smaller ones.
        scale: side of a template as a share of the frame's.
        widths: output channels of the convolutions.

    Raises:
        ConfigError: the kernel does not fit into the template.
    """

    def __init__(
        self,
        cells: int,
        side: int,
        kernel: int = 4,
        scale: float = 1 / 3,
        widths: tuple[int, int] = (128, 64),
    ) -> None:
        super().__init__()
        left = side - 2 * (kernel - 1)
        if left < 1:
            raise ConfigError(
                "training.localiser_kernel",
                f"{kernel} with templates of {side} x {side} cells",
                f"at most {(side + 1) // 2}",
                "Choose a smaller kernel, or larger crops.",
            )
        self.scale = scale
        self.layers = nn.Sequential(
            nn.Conv2d(cells, widths[0], kernel, bias=False),
            nn.LeakyReLU(0.1),
            nn.Conv2d(widths[0], widths[1], kernel, bias=False),
            nn.LeakyReLU(0.1),
            nn.Flatten(),
            nn.Linear(widths[1] * left * left, 3),
        )

    def forward(self, correlated: Tensor) -> Tensor:
        """A correlation ``(B, cells, s, s)`` to a theta ``(B, 2, 3)``."""
        found: Tensor = self.layers(correlated)
        return similarity_transform(found[:, :2].float(), found[:, 2].float(), self.scale)


def grid_distance(
    predicted: Tensor, true: Tensor, points: int = GRID_POINTS, weights: Tensor | None = None
) -> Tensor:
    """Mean squared distance between where two transforms put the points of a grid.

    Args:
        predicted: theta, ``(B, 2, 3)``.
        true: theta, ``(B, 2, 3)``.
        points: of the grid in each direction.
        weights: ``(B, points, points)``, summing up to 1 per sample; None for a plain mean.

    Returns:
        ``(B,)``, in squared units of half the frame's side.
    """
    squared = (affine_points(predicted, points) - affine_points(true, points)).square().sum(3)
    if weights is None:
        return squared.mean((1, 2))
    return (squared * weights).sum((1, 2))


def inlier_score(
    correlated: Tensor, theta: Tensor, size: tuple[int, int], offset_factor: float = 1.0
) -> Tensor:
    """How much of the correlation agrees with a transform.

    The identity match, one channel per cell of the frame, is warped by the transform, normalised
    to the sum 1 and multiplied with the correlation. That is the same as reading each template
    cell's correlation bilinearly where the transform puts the cell, which is what is done here.

    Args:
        correlated: ``(B, h * w, s, s)``, see :func:`correlation`.
        theta: ``(B, 2, 3)``.
        size: (h, w).
        offset_factor: see :func:`affine_points`.

    Returns:
        ``(B,)`` in [0, 1].
    """
    side = correlated.shape[2]
    points = affine_points(theta, side, offset_factor).flatten(1, 2)  # (B, s * s, 2)
    maps = torch.unflatten(correlated.flatten(2).mT, 2, size)  # (B, s * s, h, w)
    maps = torch.stack([maps, torch.ones_like(maps)], 2).flatten(0, 1)
    read = F.grid_sample(maps, points.flatten(0, 1)[:, None, None], align_corners=True)
    agreeing, inside = read.reshape(len(theta), side * side, 2).sum(1).unbind(1)
    return agreeing / (inside + TINY)


class Track(NamedTuple):
    """A template found again in a frame.

    Attributes:
        theta: where, ``(B, 2, 3)``.
        inliers: see :func:`inlier_score`, ``(B,)``.
        template: unit vectors ``(B, C, s, s)`` of the frame there: the next template.
    """

    theta: Tensor
    inliers: Tensor
    template: Tensor


class Tracker(nn.Module):
    """Finds a template in a frame and crops it out of there, differentiably.

    Args:
        localiser: regresses the transform.
        temperature: of the correlation.
        offset_factor: see :func:`affine_points`.
    """

    def __init__(self, localiser: Localiser, temperature: float, offset_factor: float) -> None:
        super().__init__()
        self.localiser = localiser
        self.temperature = temperature
        self.offset_factor = offset_factor

    def forward(self, template: Tensor, frame: Tensor) -> Track:
        """Find a template, unit vectors ``(B, C, s, s)``, in a frame, ``(B, C, h, w)``."""
        correlated = correlation(frame, template, self.temperature)
        theta = self.localiser(correlated)
        size = (frame.shape[2], frame.shape[3])
        inliers = inlier_score(correlated, theta, size, self.offset_factor)
        cropped = crop(frame, theta, template.shape[2], self.offset_factor)
        return Track(theta, inliers, F.normalize(cropped, dim=1))
