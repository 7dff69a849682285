"""YouTube-VOS 2018 and 2019: sparse annotations, and objects that enter later.

Layout, as the official archives have it::

    train/meta.json   {"videos": {id: {"objects": {"1": {"category": ..., "frames": [...]}}}}}
    train/JPEGImages/<id>/00000.jpg, 00005.jpg, ...
    train/Annotations/<id>/00000.png, 00005.png, ...
    valid/...                         masks only where an object enters
    valid_all_frames/JPEGImages/<id>  every frame, a separate download

The frames of a video are its JPEG files in order, whichever of the two sets it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

from bench.dataset import Problem, VideoDataset
from bench.errors import ConfigError, DataError
from bench.masks import read_mask
from bench.media import list_images
from bench.metrics.rules import YOUTUBE_VOS, ScoringRule
from bench.registry import register_dataset
from bench.video import ObjectInfo, Video, object_ids
from datasets._files import (
    Clip,
    Progress,
    choose_split,
    clip_problems,
    clip_video,
    fewer_than_official,
    need_root,
    pair,
    read_ids,
    refuse_unknown,
    run_checks,
    unknown_sequence,
)

UNKNOWN = "unknown"
"""What some copies of meta.json write where they do not know the category."""


class _YoutubeVos(VideoDataset):
    """What the two years share.

    Whether an object's category is *seen* is not in the files of valid and test. It is worked
    out, in this order: from the setting ``unseen``; from the categories of ``train/meta.json``
    where that file is there; otherwise it is None. No list is built in.

    Args:
        root: folder that holds train, valid or test.
        split: one of ``splits``; None for valid.
        all_frames: True takes the frames from ``<split>_all_frames``, False from ``<split>``;
            None takes ``<split>`` and, where it has no frames, the other.
        unseen: names of the categories that count as unseen.

    Raises:
        ConfigError: unknown split or setting, or one of the wrong type.
        DataError: no such split, or no meta.json.
    """

    splits = ("valid", "train", "test")
    scoring: ClassVar[ScoringRule] = YOUTUBE_VOS
    collection = "YouTube-VOS"
    official: ClassVar[dict[str, int]]

    def __init__(
        self,
        root: Path | None,
        split: str | None = None,
        all_frames: bool | None = None,
        unseen: Sequence[str] | None = None,
        **settings: Any,
    ) -> None:
        refuse_unknown(type(self), settings, ["all_frames", "unseen"])
        if unseen is not None and (isinstance(unseen, str) or not all(map(_is_str, unseen))):
            raise ConfigError(
                f"{self.name}: unseen", repr(unseen), "a list of category names", "Write a list."
            )
        self.split = choose_split(type(self), split)
        self.root = need_root(type(self), root)
        self.progress: Progress | None = None
        self.unseen = None if unseen is None else frozenset(unseen)
        self.frame_folder = self._frame_folder(all_frames)
        home = self.root / self.split
        if not (home / "meta.json").is_file():  # everything may lie beside the full set of frames
            home = self.frame_folder.parent
        self.meta_path = home / "meta.json"
        self.mask_folder = home / "Annotations"
        self._videos = read_meta(self.meta_path, self.how_to_get)

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether a split's folder with frames is there."""
        return any(
            (root / folder / "JPEGImages").is_dir()
            for split in cls.splits
            for folder in _frame_homes(split)
        )

    def _frame_folder(self, all_frames: bool | None) -> Path:
        homes = _frame_homes(self.split)
        if all_frames is not None:
            homes = homes[1:] if all_frames else homes[:1]
        folders = [self.root / home / "JPEGImages" for home in homes]
        for folder in folders:
            if folder.is_dir():
                return folder
        looked = " or ".join(str(folder) for folder in folders)
        raise DataError(self.root, f"no {looked}", f"frames of {self.split}", self.how_to_get)

    def sequences(self) -> list[str]:
        """Names of the videos, sorted."""
        return sorted(self._videos)

    def _objects(self, sequence: str) -> dict[int, Mapping[str, Any]]:
        """Entries of meta.json by object id; entries of no use are left out."""
        entry = self._videos[sequence]
        objects = entry.get("objects") if isinstance(entry, dict) else None
        if not isinstance(objects, dict):
            return {}
        return {int(key): o for key, o in objects.items() if key.isdigit() and isinstance(o, dict)}

    def _meta_problems(self, sequence: str) -> list[Problem]:
        objects = self._objects(sequence)
        if not objects:
            return [Problem(self.meta_path, f"video {sequence} has no objects")]
        return [
            Problem(self.meta_path, f"object {key} of video {sequence} has no frames")
            for key, entry in objects.items()
            if not _frames(entry)
        ]

    def _clip(self, sequence: str) -> Clip:
        if sequence not in self._videos:
            raise unknown_sequence(f"{self.name}-{self.split}", sequence, self.sequences())
        named = [_frames(entry) for entry in self._objects(sequence).values()]
        # Frames of the files and of meta.json together, so that a missing file is noticed.
        names = {name for frames in named for name in frames}
        folder = self.frame_folder / sequence
        if folder.is_dir():
            names |= {path.stem for path in list_images(folder)}
        # Outside train an object has a mask where it enters and nowhere else.
        given = named if self.split == "train" else [frames[:1] for frames in named]
        required = sorted({name for frames in given for name in frames})
        clip = pair(sequence, folder, self.mask_folder / sequence, required, sorted(names))
        clip.problems.extend(self._meta_problems(sequence))
        return clip

    @cached_property
    def _trained(self) -> frozenset[str] | None:
        """Categories of the training set, or None where its meta.json is not there."""
        path = self.root / "train" / "meta.json"
        if not path.is_file():
            return None
        videos = read_meta(path, self.how_to_get)
        entries = [video.get("objects", {}) for video in videos.values() if isinstance(video, dict)]
        found = {_category(entry) for objects in entries for entry in objects.values()}
        return frozenset(name for name in found if name is not None) or None

    def _seen(self, category: str | None) -> bool | None:
        if category is None:
            return None
        if self.unseen is not None:
            return category not in self.unseen
        return None if self._trained is None else category in self._trained

    def video(self, sequence: str) -> Video:
        """One video; only the first frame's header is read.

        Raises:
            DataError: unknown sequence, or one with missing files.
        """
        objects = {}
        clip = self._clip(sequence)
        for key, entry in self._objects(sequence).items():
            category = _category(entry)
            objects[key] = ObjectInfo(category, self._seen(category))
        return clip_video(self.name, clip, read_ids, objects, scorable=self.split == "train")

    def fingerprint(self, sequence: str) -> str:
        """Hash of a sequence's frames and masks."""
        return self._clip(sequence).fingerprint()

    def verify(self) -> list[Problem]:
        """Decode every frame and mask, compare with meta.json, and list exactly what is wrong."""
        problems = fewer_than_official(self.meta_path, len(self), self.official[self.split])
        checks = [partial(self._verify_one, name) for name in self.sequences()]
        return problems + run_checks(checks, self.progress)

    def _verify_one(self, sequence: str) -> list[Problem]:
        clip = self._clip(sequence)
        problems = clip_problems(clip, read_ids)
        broken = {problem.path for problem in problems}
        ids = {
            path.stem: set(object_ids(read_mask(path)))
            for path in clip.masks.values()
            if path not in broken
        }
        objects = self._objects(sequence)
        folder = self.mask_folder / sequence
        for key, entry in objects.items():
            first = _frames(entry)[:1]
            if first and first[0] in ids and key not in ids[first[0]]:
                what = f"object {key} is not in this mask, the first that meta.json names for it"
                problems.append(Problem(folder / f"{first[0]}.png", what, "note"))
        for stem, found in ids.items():
            extra = sorted(found - set(objects))
            if extra and objects:
                what = f"object {', '.join(map(str, extra))} is not in meta.json"
                problems.append(Problem(folder / f"{stem}.png", what, "note"))
        return problems


def _is_str(value: Any) -> bool:
    return isinstance(value, str)


def _frame_homes(split: str) -> list[str]:
    """Where a split's JPEGImages may be: sparse frames first, then the full set."""
    return [split, f"{split}_all_frames", f"{split}_all_frames/{split}"]


def _frames(entry: Mapping[str, Any]) -> list[str]:
    frames = entry.get("frames")
    return sorted(map(str, frames)) if isinstance(frames, list) else []


def _category(entry: Mapping[str, Any]) -> str | None:
    category = entry.get("category")
    return category if isinstance(category, str) and category != UNKNOWN else None


def read_meta(path: Path, how_to_get: str) -> dict[str, Any]:
    """The videos of a meta.json by name.

    Raises:
        DataError: no such file, no JSON, or no videos in it.
    """
    try:
        videos = json.loads(path.read_text(encoding="utf-8"))["videos"]
    except FileNotFoundError:
        raise DataError(path, "no such file", "the list of videos", how_to_get) from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            path,
            f"a file of another form ({type(error).__name__}: {error})",
            '{"videos": {...}}',
            "Take the official file.",
        ) from error
    if not isinstance(videos, dict):
        raise DataError(path, "no videos by name", '{"videos": {...}}', "Take the official file.")
    return videos


@register_dataset("ytvos18")
class YoutubeVos2018(_YoutubeVos):
    """YouTube-VOS 2018."""

    name = "ytvos18"
    title = "YouTube-VOS 2018"
    folders = ("YouTubeVOS2018", "YouTubeVOS")
    official: ClassVar[dict[str, int]] = {"train": 3471, "valid": 474, "test": 508}
    how_to_get = (
        "Register at https://youtube-vos.org, download the 2018 archives and extract them into "
        "one folder: train/JPEGImages, train/Annotations, train/meta.json, and valid likewise."
    )


@register_dataset("ytvos19")
class YoutubeVos2019(_YoutubeVos):
    """YouTube-VOS 2019: the same training videos, more of valid and test."""

    name = "ytvos19"
    title = "YouTube-VOS 2019"
    folders = ("YouTubeVOS2019", "YouTubeVOS")
    official: ClassVar[dict[str, int]] = {"train": 3471, "valid": 507, "test": 541}
    how_to_get = (
        "Register at https://youtube-vos.org, download the 2019 archives and extract them into "
        "one folder: train/JPEGImages, train/Annotations, train/meta.json, and valid likewise."
    )
