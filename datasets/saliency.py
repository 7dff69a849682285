"""Still images with one salient object: ECSSD and MSRA10K.

Layouts, as the official archives have them::

    ECSSD/images/0001.jpg        ECSSD/ground_truth_mask/0001.png
    MSRA10K/Imgs/<id>.jpg        MSRA10K/Imgs/<id>.png
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bench.dataset import ImageDataset, Problem
from bench.errors import DataError
from bench.masks import read_mask
from bench.media import image_size, list_images, read_image
from bench.registry import register_dataset
from bench.video import LabelledImage, Mask
from datasets._files import (
    Progress,
    choose_split,
    need_root,
    refuse_unknown,
    run_checks,
    wrong_size,
)

THRESHOLD = 128
"""Grey levels from here on are the object. The masks are drawn in black and white, but some
were smoothed at their edges, and saliency has no use for half an object."""


def read_saliency(path: Path) -> Mask:
    """Read a saliency mask to uint8 0/1 ``(H, W)``: 0/255 with greys cut at 128, or 0/1.

    Raises:
        MaskError: unreadable, truncated or coloured.
    """
    mask = read_mask(path)
    # A 1-bit PNG and a palette of two colours come as 0/1, where 1 is the object.
    limit = 1 if mask.size and int(mask.max()) <= 1 else THRESHOLD
    return (mask >= limit).astype(np.uint8)


class _Saliency(ImageDataset):
    """What the two share: JPEGs and PNGs of the same name.

    Args:
        root: the dataset's folder.
        split: ``"all"``.

    Raises:
        ConfigError: unknown split or setting.
        DataError: no such folders, or no images.
    """

    splits = ("all",)
    image_folder: ClassVar[str]
    mask_folder: ClassVar[str]
    official: ClassVar[int]

    def __init__(self, root: Path | None, split: str | None = None, **settings: Any) -> None:
        refuse_unknown(type(self), settings, [])
        self.split = choose_split(type(self), split)
        self.root = need_root(type(self), root)
        self.progress: Progress | None = None
        for folder in (self.image_folder, self.mask_folder):
            if not (self.root / folder).is_dir():
                raise DataError(
                    self.root / folder, "no folder", f"a part of {self.title}", self.how_to_get
                )
        found = list_images(self.root / self.image_folder)
        # In MSRA10K's folder the PNGs are the masks.
        self._images = [path for path in found if path.suffix.lower() != ".png"]
        if not self._images:
            raise DataError(
                self.root / self.image_folder, "no JPEG file", "the images", self.how_to_get
            )

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether the dataset's folders are there."""
        return (root / cls.image_folder).is_dir() and (root / cls.mask_folder).is_dir()

    def _mask_path(self, image: Path) -> Path:
        return self.root / self.mask_folder / f"{image.stem}.png"

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> LabelledImage:
        """Decode one image and its mask, uint8 0/1.

        Raises:
            IndexError: past the end.
            DataError: a broken or missing file, or unequal sizes.
        """
        path = self._images[index]
        image, mask = read_image(path), read_saliency(self._mask_path(path))
        if image.shape[:2] != mask.shape:
            raise DataError(
                self._mask_path(path),
                f"{mask.shape[1]}x{mask.shape[0]} pixels",
                f"{image.shape[1]}x{image.shape[0]} like its image",
                "Extract the dataset again.",
            )
        return LabelledImage(name=path.stem, image=image, mask=mask)

    def verify(self) -> list[Problem]:
        """Decode every image and mask and list exactly what is missing or broken."""
        problems: list[Problem] = []
        if len(self) < self.official:
            what = f"{len(self)} of the {self.official} official images"
            problems.append(Problem(self.root / self.image_folder, what, "note"))
        stems = {path.stem for path in self._images}
        problems += [
            Problem(self.root / self.image_folder / f"{path.stem}.jpg", "missing image")
            for path in list_images(self.root / self.mask_folder)
            if path.suffix.lower() == ".png" and path.stem not in stems
        ]
        checks = [partial(self._verify_one, path) for path in self._images]
        return problems + run_checks(checks, self.progress)

    def _verify_one(self, path: Path) -> list[Problem]:
        problems: list[Problem] = []
        mask_path = self._mask_path(path)
        try:
            read_image(path)
        except DataError as error:
            problems.append(Problem(path, error.found))
        if not mask_path.is_file():
            return [*problems, Problem(mask_path, "missing mask")]
        try:
            mask = read_saliency(mask_path)
        except DataError as error:
            return [*problems, Problem(mask_path, error.found)]
        if not problems and mask.shape != image_size(path):
            problems.append(Problem(mask_path, wrong_size(mask_path, mask.shape, image_size(path))))
        return problems


@register_dataset("ecssd")
class Ecssd(_Saliency):
    """ECSSD: 1000 natural images with saliency masks."""

    name = "ecssd"
    title = "ECSSD"
    folders = ("ECSSD",)
    image_folder = "images"
    mask_folder = "ground_truth_mask"
    official = 1000
    how_to_get = (
        "Download images.zip and ground_truth_mask.zip from the ECSSD page of the Chinese "
        "University of Hong Kong (Yan et al., Hierarchical Saliency Detection) and extract both "
        "into one folder: images/0001.jpg and ground_truth_mask/0001.png."
    )


@register_dataset("msra10k")
class Msra10k(_Saliency):
    """MSRA10K: 10 000 images with saliency masks."""

    name = "msra10k"
    title = "MSRA10K"
    folders = ("MSRA10K", "MSRA10K_Imgs_GT")
    image_folder = "Imgs"
    mask_folder = "Imgs"
    official = 10000
    how_to_get = (
        "Download MSRA10K_Imgs_GT.zip from https://mmcheng.net/msra10k and extract it: the folder "
        "then holds Imgs/<id>.jpg and Imgs/<id>.png."
    )
