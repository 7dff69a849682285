"""COCO 2017 instances as labelled images.

Layout, as the official archives have it::

    annotations/instances_train2017.json
    train2017/000000000009.jpg

How instances become one mask of ids:

- Ids are 1..N in the order of the annotation file.
- Where instances overlap, the smaller one is on top, so that a cup on a table stays visible.
- Rings of a polygon are joined, as everywhere with COCO: a ring inside a ring is no hole. Holes
  exist in run-length encoded masks only.
- 255 (ignore) are crowd regions, unless ``include_crowd``, and instances below ``min_area``: the
  objects are there, so calling them background would teach a lie. Instances lie over them.
- Instances and crowds of categories that were not asked for are background.
- A mask holds 254 ids; of more instances the largest 254 are kept and the rest is 255.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bench.dataset import ImageDataset, Problem
from bench.errors import ConfigError, DataError
from bench.media import read_image
from bench.registry import register_dataset
from bench.video import VOID, LabelledImage, Mask
from datasets._files import (
    Progress,
    choose_split,
    did_you_mean,
    need_root,
    refuse_unknown,
    run_checks,
    wrong_size,
)

MOST_INSTANCES = 254
FEWEST_COORDINATES = 6
"""A ring of fewer than three points encloses nothing (and pycocotools takes four numbers for a
bounding box), so it is left out."""


@dataclass(frozen=True)
class Instance:
    """One annotation that is used.

    Attributes:
        key: the annotation's id.
        category: name of its category.
        area: the file's area in pixels.
        crowd: whether it stands for a group.
        segmentation: polygons or run lengths, as in the file.
    """

    key: int
    category: str
    area: float
    crowd: bool
    segmentation: Any


@dataclass(frozen=True)
class _Index:
    images: list[Mapping[str, Any]]
    instances: Mapping[int, list[Instance]]
    problems: list[Problem]


@register_dataset("coco")
class Coco(ImageDataset):
    """COCO 2017 with instance masks; see the module for how instances become ids.

    Args:
        root: folder that holds ``annotations`` and the images.
        split: ``train2017`` (default) or ``val2017``.
        categories: names of the categories to keep; None for all.
        min_area: instances of fewer pixels become 255.
        include_crowd: whether crowd regions are instances too; otherwise they become 255.
        require_instances: leave out images without an instance that is kept.

    Raises:
        ConfigError: unknown split, setting or category.
        DataError: no annotation file or no folder of images.
    """

    name = "coco"
    title = "COCO 2017"
    splits = ("train2017", "val2017")
    folders = ("COCO", "coco")
    how_to_get = (
        "Download train2017.zip, val2017.zip and annotations_trainval2017.zip from "
        "https://cocodataset.org and extract them into one folder: train2017, val2017 and "
        "annotations/instances_train2017.json."
    )
    official: ClassVar[dict[str, int]] = {"train2017": 118287, "val2017": 5000}

    def __init__(
        self,
        root: Path | None,
        split: str | None = None,
        categories: list[str] | None = None,
        min_area: float = 0.0,
        include_crowd: bool = False,
        require_instances: bool = False,
        **settings: Any,
    ) -> None:
        known = ["categories", "min_area", "include_crowd", "require_instances"]
        refuse_unknown(type(self), settings, known)
        self.split = choose_split(type(self), split)
        self.root = need_root(type(self), root)
        self.progress: Progress | None = None
        if isinstance(categories, str):
            raise ConfigError("coco: categories", repr(categories), "a list", "Write a list.")
        if isinstance(min_area, bool) or not isinstance(min_area, int | float) or min_area < 0:
            raise ConfigError("coco: min_area", repr(min_area), "0 or more", "Write a number.")
        self.categories = None if categories is None else tuple(categories)
        self.min_area = min_area
        self.include_crowd = include_crowd
        self.require_instances = require_instances
        self.image_folder = self.root / self.split
        self.annotation_path = self.root / "annotations" / f"instances_{self.split}.json"
        if not self.annotation_path.is_file():
            raise DataError(self.annotation_path, "no such file", "the instances", self.how_to_get)
        if not self.image_folder.is_dir():
            raise DataError(self.image_folder, "no folder", "the images", self.how_to_get)

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether a split's annotations and images are there."""
        return (root / "annotations").is_dir() and any(
            (root / split).is_dir() for split in cls.splits
        )

    @cached_property
    def _index(self) -> _Index:
        """Images and instances by image id, read on first use: the official file is large."""
        try:
            content = json.loads(self.annotation_path.read_bytes())
            images, annotations = content["images"], content["annotations"]
            names = {entry["id"]: entry["name"] for entry in content["categories"]}
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                self.annotation_path,
                f"a file of another form ({type(error).__name__}: {error})",
                "JSON with images, annotations and categories",
                "Take the official file.",
            ) from error
        self._check_categories(list(names.values()))
        problems: list[Problem] = []
        instances: dict[int, list[Instance]] = defaultdict(list)
        known = {image["id"] for image in images}
        for entry in annotations:
            if entry["image_id"] not in known or entry["category_id"] not in names:
                what = f"annotation {entry['id']} belongs to no image or category of the file"
                problems.append(Problem(self.annotation_path, what))
                continue
            name = names[entry["category_id"]]
            if self.categories is None or name in self.categories:
                instances[entry["image_id"]].append(
                    Instance(
                        entry["id"],
                        name,
                        float(entry["area"]),
                        bool(entry.get("iscrowd", 0)),
                        entry["segmentation"],
                    )
                )
        if self.require_instances:
            images = [i for i in images if any(map(self._kept, instances[i["id"]]))]
        return _Index(images, instances, problems)

    def _check_categories(self, names: list[str]) -> None:
        for name in self.categories or ():
            if name not in names:
                raise ConfigError(
                    "coco: categories",
                    repr(name),
                    f"names of {self.annotation_path.name}",
                    did_you_mean(name, names) or f"There are: {', '.join(names)}.",
                )

    def _kept(self, instance: Instance) -> bool:
        """Whether an instance gets an id; the others become 255."""
        return instance.area >= self.min_area and (self.include_crowd or not instance.crowd)

    def __len__(self) -> int:
        return len(self._index.images)

    def __getitem__(self, index: int) -> LabelledImage:
        """Decode one image and its instances.

        Raises:
            IndexError: past the end.
            DataError: a broken image, or masks of another size.
        """
        entry = self._index.images[index]
        path = self.image_folder / entry["file_name"]
        image = read_image(path)
        size = (entry["height"], entry["width"])
        if image.shape[:2] != size:
            raise DataError(
                path,
                f"{image.shape[1]}x{image.shape[0]} pixels",
                f"{size[1]}x{size[0]} as in {self.annotation_path.name}",
                "Extract the images again.",
            )
        mask, categories = self._paint(self._index.instances.get(entry["id"], []), size)
        return LabelledImage(path.stem, image, mask, categories)

    def _paint(
        self, instances: list[Instance], size: tuple[int, int]
    ) -> tuple[Mask, dict[int, str]]:
        """Draw instances into one mask of ids ``(H, W)``, the largest first."""
        drawn = [(one, decode_segmentation(one, size, self.annotation_path)) for one in instances]
        # An instance without a pixel gets no id, so that every id is to be found in the mask.
        kept = [(one, m) for one, m in drawn if self._kept(one) and m.any()]
        largest = sorted(kept, key=lambda pair: pair[0].area, reverse=True)[:MOST_INSTANCES]
        chosen = {one.key for one, _ in largest}
        ids = {one.key: n for n, one in enumerate((i for i in instances if i.key in chosen), 1)}
        mask = np.zeros(size, np.uint8)
        for one, pixels in drawn:
            if one.key not in ids:
                mask[pixels] = VOID
        for one, pixels in largest:
            mask[pixels] = ids[one.key]
        return mask, {ids[one.key]: one.category for one in instances if one.key in ids}

    def verify(self) -> list[Problem]:
        """Decode every image and instance and list exactly what is missing or broken."""
        problems = list(self._index.problems)
        official = self.official[self.split]
        if len(self) < official and not self.require_instances:
            what = f"{len(self)} of the {official} official images"
            problems.append(Problem(self.annotation_path, what, "note"))
        checks = [partial(self._verify_one, index) for index in range(len(self))]
        return problems + run_checks(checks, self.progress)

    def _verify_one(self, index: int) -> list[Problem]:
        entry = self._index.images[index]
        path = self.image_folder / entry["file_name"]
        size = (entry["height"], entry["width"])
        problems: list[Problem] = []
        if not path.is_file():
            problems.append(Problem(path, "missing image"))
        else:
            try:
                found = read_image(path).shape
                if found[:2] != size:
                    problems.append(Problem(path, wrong_size(path, found, size)))
            except DataError as error:
                problems.append(Problem(path, error.found))
        for one in self._index.instances.get(entry["id"], []):
            try:
                empty = not decode_segmentation(one, size, self.annotation_path).any()
            except DataError as error:
                problems.append(Problem(self.annotation_path, f"{_who(one)}: {error.found}"))
                continue
            if empty:
                what = f"{_who(one)}: no pixel inside the image"
                problems.append(Problem(self.annotation_path, what, "note"))
        return problems


def _who(instance: Instance) -> str:
    return f"annotation {instance.key}"


def decode_segmentation(
    instance: Instance, size: tuple[int, int], where: Path
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Decode polygons, run lengths or compressed run lengths to bool ``(H, W)``.

    Args:
        instance: the annotation.
        size: (H, W) of its image.
        where: the annotation file, for errors.

    Raises:
        DataError: run lengths of another size, or something else than these three forms.
    """
    from pycocotools import mask as coco_mask

    height, width = size
    segmentation = instance.segmentation
    try:
        if isinstance(segmentation, list):
            rings = [ring for ring in segmentation if len(ring) >= FEWEST_COORDINATES]
            if not rings:
                return np.zeros(size, bool)
            encoded = coco_mask.merge(coco_mask.frPyObjects(rings, height, width))
        else:
            if list(segmentation["size"]) != [height, width]:
                raise ValueError(f"run lengths of size {segmentation['size']}")
            encoded = segmentation
            if isinstance(segmentation["counts"], list):
                total = sum(segmentation["counts"])
                if total != height * width:  # pycocotools would read past the end
                    raise ValueError(f"run lengths of {total} pixels in all")
                encoded = coco_mask.frPyObjects(segmentation, height, width)
        return np.asarray(coco_mask.decode(encoded), dtype=bool)
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{where}: {_who(instance)}",
            f"a segmentation that cannot be decoded ({error})",
            f"polygons or run lengths for {width}x{height} pixels",
            "Take the official file.",
        ) from error
