"""Unlabelled videos from a plain folder or file: the user's own recordings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench.dataset import Problem, VideoDataset, fingerprint_files
from bench.errors import DataError
from bench.media import (
    VideoFile,
    is_video_file,
    list_images,
    natural_key,
    open_video,
)
from bench.registry import register_dataset
from bench.video import Video
from datasets._files import (
    Clip,
    Progress,
    choose_split,
    clip_problems,
    folder_names,
    read_ids,
    refuse_unknown,
    run_checks,
    unknown_sequence,
)

NO_SEQUENCE = ("__MACOSX",)
"""Folders that archive tools leave behind."""


@register_dataset("frames")
class Frames(VideoDataset):
    """A folder of frames, a folder of such folders, a video file, or a folder of video files.

    Every folder inside the root counts as a sequence, so one without frames is an error and not
    a silent gap. A folder and a file, or two files, of the same name keep their suffix to tell
    them apart.

    Args:
        root: the folder or file.
        split: ``"all"``.

    Raises:
        ConfigError: unknown split or setting.
        DataError: nothing there that could be a video.
    """

    name = "frames"
    title = "Plain videos"
    splits = ("all",)
    folders = ("frames", "videos")
    how_to_get = (
        "Any folder of JPEG or PNG frames, folder of such folders, video file, or folder of video "
        "files; name it with --root."
    )

    def __init__(self, root: Path | None, split: str | None = None, **settings: Any) -> None:
        refuse_unknown(type(self), settings, [])
        self.split = choose_split(type(self), split)
        self.progress: Progress | None = None
        if root is None or not root.exists():
            raise DataError(root or self.name, "nothing", "a folder or file", self.how_to_get)
        self.root = root
        self._paths = self._find()
        if not self._paths:
            raise DataError(root, "no frames and no video file", "some", self.how_to_get)

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether there are images, folders with images, or video files."""
        if list_images(root) or any(map(is_video_file, root.iterdir())):
            return True
        return any(list_images(root / name) for name in folder_names(root))

    def _find(self) -> dict[str, Path]:
        if self.root.is_file():
            return {self.root.stem: self.root} if is_video_file(self.root) else {}
        if list_images(self.root):
            return {self.root.resolve().name: self.root}
        folders = [self.root / name for name in folder_names(self.root) if name not in NO_SEQUENCE]
        files = [path for path in self.root.iterdir() if is_video_file(path)]
        stems = [path.name for path in folders] + [path.stem for path in files]
        found = {path.name: path for path in folders}
        for path in files:
            found[path.stem if stems.count(path.stem) == 1 else path.name] = path
        return {name: found[name] for name in sorted(found, key=natural_key)}

    def sequences(self) -> list[str]:
        """Names of the folders and files, in natural order."""
        return list(self._paths)

    def _path(self, sequence: str) -> Path:
        if sequence not in self._paths:
            raise unknown_sequence(self.name, sequence, self.sequences())
        return self._paths[sequence]

    def video(self, sequence: str) -> Video:
        """One video; of a folder the headers are read, a video file is decoded once to count.

        Raises:
            DataError: unknown sequence, no frames, or frames of unequal size.
        """
        return open_video(self._path(sequence), self.name, sequence)

    def fingerprint(self, sequence: str) -> str:
        """Hash of the frames, as in :func:`bench.dataset.fingerprint_files`, or of the file."""
        path = self._path(sequence)
        if path.is_dir():
            return fingerprint_files(list_images(path), [])
        with path.open("rb") as file:
            return hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16)).hexdigest()

    def verify(self) -> list[Problem]:
        """Decode every frame and list exactly what is broken."""
        checks: list[Callable[[], list[Problem]]] = [
            partial(self._verify_one, name, path) for name, path in self._paths.items()
        ]
        return run_checks(checks, self.progress)

    @staticmethod
    def _verify_one(name: str, path: Path) -> list[Problem]:
        if path.is_dir():
            frames = list_images(path)
            if not frames:
                return [Problem(path, "empty folder of frames")]
            return clip_problems(Clip(name, path, frames, {}), read_ids)
        try:
            VideoFile(path)
        except DataError as error:
            return [Problem(path, error.found)]
        return []
