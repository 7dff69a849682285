"""Which superpixels to use: the settings of all kinds in one checked model."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from bench.method import MethodSettings
from bench.video import RGB
from methods.shls.superpixels.isec import VERSION as ISEC_VERSION
from methods.shls.superpixels.isec import SuperpixelMap, isec
from methods.shls.superpixels.slic import grid, slic


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("must be odd")
    return value


class SuperpixelSettings(MethodSettings):
    """Superpixels and their parameters; those of other kinds are ignored.

    Attributes:
        method: ``"isec"`` (what SHLS segments with), ``"slic"`` (what it trains with) or
            ``"grid"`` (rectangles).
        filter_order: ISEC's window in pixels, odd; smaller makes more superpixels.
        iterations: ISEC's scales of edges.
        area_threshold: ISEC drops holes and border pieces below so many pixels.
        segments: how many superpixels SLIC or the grid aim for.
        compactness: SLIC's weight of position against colour.
        sigma: SLIC smooths the image by so many pixels.
    """

    method: Literal["isec", "slic", "grid"] = "isec"
    filter_order: Annotated[int, Field(ge=3), AfterValidator(_odd)] = 11
    iterations: int = Field(default=4, ge=1)
    area_threshold: int = Field(default=20, ge=0)
    segments: int = Field(default=300, ge=1)
    compactness: float = Field(default=20.0, gt=0)
    sigma: float = Field(default=1.0, ge=0)

    def compute(self, image: RGB) -> SuperpixelMap:
        """Superpixels of a uint8 RGB image ``(H, W, 3)``: int32 ``(H, W)``, ids 1 .. N."""
        if self.method == "isec":
            return isec(image, self.filter_order, self.iterations, self.area_threshold)
        if self.method == "slic":
            return slic(image, self.segments, self.compactness, self.sigma)
        return grid(image.shape[:2], self.segments)

    def identity(self) -> str:
        """All that the superpixels of an image depend on, as text; equal text, equal result."""
        if self.method == "isec":
            used, made_by = {"filter_order", "iterations", "area_threshold"}, str(ISEC_VERSION)
        elif self.method == "slic":
            used, made_by = {"segments", "compactness", "sigma"}, version("scikit-image")
        else:
            used, made_by = {"segments"}, "1"
        values = self.model_dump(include={"method", *used})
        return json.dumps({"made by": made_by, **values}, sort_keys=True)
