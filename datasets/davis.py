"""DAVIS-2016 (one object) and DAVIS-2017 (several): densely annotated videos.

Layout, as the official archives have it::

    ImageSets/480p/val.txt            2016: "/JPEGImages/480p/x/00000.jpg /Annotations/480p/x/00000.png"
    ImageSets/2017/val.txt            2017: one sequence name a line
    JPEGImages/<resolution>/<sequence>/00000.jpg
    Annotations/<resolution>/<sequence>/00000.png
"""  # noqa: E501

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from bench.dataset import Problem, VideoDataset
from bench.errors import ConfigError, DataError
from bench.metrics.rules import FOREGROUND
from bench.registry import register_dataset
from bench.video import Mask, Video
from datasets._files import (
    Clip,
    Progress,
    choose_split,
    clip_problems,
    clip_video,
    fewer_than_official,
    folder_names,
    follow,
    need_root,
    pair,
    read_binary,
    read_ids,
    read_lines,
    refuse_unknown,
    run_checks,
    unknown_sequence,
)

PREFERRED_RESOLUTION = "480p"
"""What papers report on; taken wherever the folder has it."""


class _Davis(VideoDataset):
    """What the two years share.

    Args:
        root: folder that holds ImageSets, JPEGImages and Annotations.
        split: one of ``splits``; None for val.
        resolution: folder name inside JPEGImages, e.g. ``"480p"`` or ``"Full-Resolution"``; None
            takes 480p where the split has it and else the resolution that is there.

    Raises:
        ConfigError: unknown split, setting or resolution.
        DataError: no list of the split, or no frames.
    """

    # All videos of 2016 are in 2017, in the split of the same name.
    collection = "DAVIS"
    official: ClassVar[dict[str, int]]

    def __init__(
        self,
        root: Path | None,
        split: str | None = None,
        resolution: str | None = None,
        **settings: Any,
    ) -> None:
        refuse_unknown(type(self), settings, ["resolution"])
        self.split = choose_split(type(self), split)
        self.root = need_root(type(self), root)
        self.progress: Progress | None = None
        self.resolution = self._choose_resolution(resolution)
        self.list_path = self._list_path(self.resolution)
        self._listed = self._read_list()

    @staticmethod
    def read_annotation(path: Path) -> Mask:
        """Read one annotation to ids, uint8 ``(H, W)``."""
        raise NotImplementedError

    def _list_path(self, resolution: str) -> Path:
        """Where the split's official list lies."""
        raise NotImplementedError

    def _read_list(self) -> dict[str, list[str] | None]:
        """Sequences of the split in order, with their frame names where the list has them."""
        raise NotImplementedError

    def _choose_resolution(self, wanted: str | None) -> str:
        images = follow(self.root / "JPEGImages")
        if not images.is_dir():
            raise DataError(
                self.root / "JPEGImages", "no folder", "the folder of frames", self.how_to_get
            )
        there = sorted(p.name for p in images.iterdir() if not p.name.startswith("."))
        if wanted is not None and wanted not in there:
            raise ConfigError(
                f"{self.name}: resolution",
                repr(wanted),
                f"a folder of {images}: {', '.join(there) or 'none there'}",
                "Choose one of these, or leave it out.",
            )
        # A copy may hold one split at one resolution and another split at another.
        choices = [wanted] if wanted is not None else there
        usable = [name for name in choices if self._list_path(name).is_file()]
        if not usable:
            path = self._list_path(wanted or PREFERRED_RESOLUTION)
            raise DataError(path, "no such file", f"the list of {self.split}", self.how_to_get)
        return PREFERRED_RESOLUTION if PREFERRED_RESOLUTION in usable else usable[0]

    def sequences(self) -> list[str]:
        """Names of the split's sequences, in the order of its list."""
        return list(self._listed)

    def _clip(self, sequence: str) -> Clip:
        if sequence not in self._listed:
            raise unknown_sequence(f"{self.name}-{self.split}", sequence, self.sequences())
        images = follow(follow(self.root / "JPEGImages") / self.resolution)
        masks = follow(follow(self.root / "Annotations") / self.resolution)
        return pair(
            sequence,
            images / sequence,
            masks / sequence,
            needs_mask="first" if self._first_only else "all",
            names=self._listed[sequence],
        )

    @property
    def _first_only(self) -> bool:
        return self.split == "test-dev"

    def video(self, sequence: str) -> Video:
        """One video; only the first frame's header is read.

        Raises:
            DataError: unknown sequence, or one with missing files.
        """
        return clip_video(
            self.name,
            self._clip(sequence),
            self.read_annotation,
            scorable=not self._first_only,
        )

    def fingerprint(self, sequence: str) -> str:
        """Hash of a sequence's frames and masks."""
        return self._clip(sequence).fingerprint()

    def verify(self) -> list[Problem]:
        """Decode every frame and mask and list exactly what is missing or broken."""
        problems = fewer_than_official(self.list_path, len(self._listed), self.official[self.split])
        try:
            clips = [self._clip(sequence) for sequence in self._listed]
        except DataError as error:  # a flattened link that leads nowhere
            return [*problems, Problem(Path(error.where), error.found)]
        checks = [partial(clip_problems, clip, self.read_annotation) for clip in clips]
        return problems + run_checks(checks, self.progress)


@register_dataset("davis16")
class Davis16(_Davis):
    """DAVIS-2016: one foreground per video, masks 0/255 read as 0/1."""

    name = "davis16"
    title = "DAVIS-2016"
    splits = ("val", "train")
    folders = ("DAVIS2016", "DAVIS-2016", "DAVIS")
    how_to_get = (
        "Download DAVIS-2016 (TrainVal, 480p) from https://davischallenge.org and extract it: the "
        "folder then holds ImageSets/480p/val.txt, JPEGImages/480p and Annotations/480p."
    )
    official: ClassVar[dict[str, int]] = {"val": 20, "train": 30}
    unsupervised_scoring = FOREGROUND
    read_annotation = staticmethod(read_binary)

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether there are frames and lists by resolution; DAVIS-2017 has lists by year."""
        lists = root / "ImageSets"
        return (
            (root / "JPEGImages").exists()
            and lists.is_dir()
            and any(not name.isdigit() for name in folder_names(lists))
        )

    def _list_path(self, resolution: str) -> Path:
        return self.root / "ImageSets" / resolution / f"{self.split}.txt"

    def _read_list(self) -> dict[str, list[str] | None]:
        found: dict[str, list[str] | None] = {}
        for number, line in enumerate(read_lines(self.list_path), start=1):
            parts = Path(line.split()[0]).parts
            if len(parts) < 2 or not parts[-1].lower().endswith(".jpg"):
                raise DataError(
                    self.list_path,
                    f"line {number}: {line!r}",
                    "/JPEGImages/480p/<sequence>/<frame>.jpg /Annotations/480p/...",
                    "This is the list of another dataset; take the official one.",
                )
            names = found.setdefault(parts[-2], [])
            assert names is not None
            names.append(Path(parts[-1]).stem)
        return found


@register_dataset("davis17")
class Davis17(_Davis):
    """DAVIS-2017: several objects per video, palette masks; test-dev has first masks only."""

    name = "davis17"
    title = "DAVIS-2017"
    splits = ("val", "train", "test-dev")
    folders = ("DAVIS2017", "DAVIS-2017", "DAVIS")
    how_to_get = (
        "Download DAVIS-2017 (TrainVal or Test-Dev, 480p) from https://davischallenge.org and "
        "extract it: the folder then holds ImageSets/2017/val.txt, JPEGImages/480p and "
        "Annotations/480p."
    )
    official: ClassVar[dict[str, int]] = {"val": 30, "train": 60, "test-dev": 30}
    read_annotation = staticmethod(read_ids)

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether there are frames and the lists of 2017."""
        return (root / "JPEGImages").exists() and (root / "ImageSets" / "2017").is_dir()

    def _list_path(self, resolution: str) -> Path:
        return self.root / "ImageSets" / "2017" / f"{self.split}.txt"

    def _read_list(self) -> dict[str, list[str] | None]:
        return dict.fromkeys(read_lines(self.list_path))
