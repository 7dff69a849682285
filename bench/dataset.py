"""What a dataset adapter is, for videos and for labelled images, and where its files are found."""

from __future__ import annotations

import abc
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from bench.errors import DataError
from bench.metrics.rules import SEMI_SUPERVISED, UNSUPERVISED, ScoringRule
from bench.video import LabelledImage, Video


@dataclass(frozen=True)
class Problem:
    """One thing that is missing or broken in a dataset folder.

    Attributes:
        path: the file or folder concerned.
        what: what is wrong with it, e.g. ``"missing"``, ``"truncated JPEG"``.
        severity: ``"error"`` costs points or crashes; ``"note"`` is worth knowing (for instance
            fewer sequences than the official list).
    """

    path: Path
    what: str
    severity: Literal["error", "note"] = "error"

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


class Dataset(abc.ABC):
    """Common part of all adapters.

    Class attributes:
        name: what ``--data`` calls it.
        title: what tables call it.
        splits: names of its splits; the first is the default.
        folders: names under which its root folder may lie in ``$BENCH_DATA`` or ``./data``.
            Empty for datasets that need no files.
        how_to_get: where a user gets it and how the folder must look, in a few sentences.

    Args:
        root: the dataset's folder; see :func:`find_root`. None only where ``folders`` is empty.
        split: one of ``splits``; None for the default.

    Raises:
        ConfigError: unknown split or setting.
        DataError: the root does not look like this dataset.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    splits: ClassVar[tuple[str, ...]]
    folders: ClassVar[tuple[str, ...]] = ()
    how_to_get: ClassVar[str]

    @abc.abstractmethod
    def __init__(self, root: Path | None, split: str | None = None, **settings: Any) -> None: ...

    @classmethod
    @abc.abstractmethod
    def recognises(cls, root: Path) -> bool:
        """Whether ``root`` has this dataset's layout; cheap, looks at folder names only."""

    @abc.abstractmethod
    def verify(self) -> list[Problem]:
        """Read everything once and list exactly what is missing or broken."""


class VideoDataset(Dataset):
    """An adapter that yields videos.

    Class attributes:
        scoring: which frames are scored, and how, where first masks are given.
        unsupervised_scoring: the same where nothing is given.
        collection: what the videos were selected from. Splits of one name, of datasets of one
            collection, may share videos. Empty for the dataset alone.
    """

    scoring: ClassVar[ScoringRule] = SEMI_SUPERVISED
    unsupervised_scoring: ClassVar[ScoringRule] = UNSUPERVISED
    collection: ClassVar[str] = ""

    @abc.abstractmethod
    def sequences(self) -> list[str]:
        """Names of the split's sequences, in the official order."""

    @abc.abstractmethod
    def video(self, sequence: str) -> Video:
        """One video; nothing is decoded yet beyond what its size needs.

        Raises:
            DataError: unknown sequence, or one with missing files.
        """

    @abc.abstractmethod
    def fingerprint(self, sequence: str) -> str:
        """Hash of a sequence's data; changes when frames or masks change."""

    def __iter__(self) -> Iterator[Video]:
        for sequence in self.sequences():
            yield self.video(sequence)

    def __len__(self) -> int:
        return len(self.sequences())


class ImageDataset(Dataset):
    """An adapter that yields labelled still images."""

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def __getitem__(self, index: int) -> LabelledImage:
        """Decode one image; raises IndexError past the end and DataError for a broken file."""

    def __iter__(self) -> Iterator[LabelledImage]:
        for index in range(len(self)):
            yield self[index]


def find_root(dataset: type[Dataset], root: Path | None) -> Path | None:
    """Find a dataset's folder: ``--root``, then ``$BENCH_DATA/<folder>``, then ``./data/<folder>``.

    ``root`` may be the dataset's folder itself or the folder that holds several datasets.

    Returns:
        The folder, or None for datasets that need no files.

    Raises:
        DataError: not found; the message lists every place that was looked at and how to get it.
    """
    if not dataset.folders:
        return None
    if root is not None:
        # What is inside comes first: any folder could be one of plain videos.
        candidates = [*(root / folder for folder in dataset.folders), root]
    else:
        homes = [Path("data")]
        if os.environ.get("BENCH_DATA"):
            homes.insert(0, Path(os.environ["BENCH_DATA"]))
        candidates = [home / folder for home in homes for folder in dataset.folders]
    for candidate in candidates:
        if candidate.exists() and dataset.recognises(candidate):
            return candidate
    looked = ", ".join(str(candidate) for candidate in candidates)
    raise DataError(
        dataset.name,
        f"no {dataset.title} in any of: {looked}",
        f"a folder in the official layout of {dataset.title}",
        f"Name it with --root or set BENCH_DATA to the folder above it. {dataset.how_to_get}",
    )


def fingerprint_files(frames: Sequence[Path], masks: Sequence[Path]) -> str:
    """Hash a sequence's files: masks by content; frames by name, size, first and last 4 KiB.

    Frames are sampled because reading all of a large dataset would cost more than scoring it; an
    edit that keeps a JPEG's size, head and tail is not expected from any tool.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in masks:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for path in frames:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            head = file.read(4096)
            file.seek(max(0, size - 4096))
            digest.update(path.name.encode() + b"\0" + str(size).encode() + head + file.read(4096))
    return digest.hexdigest()
