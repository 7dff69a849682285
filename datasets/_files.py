"""What the adapters share: settings, listing, pairing frames with masks, and finding faults.

A :class:`Clip` is one sequence on disk. :func:`clip_video` turns it into a lazy
:class:`bench.video.Video`; :func:`clip_problems` reads all of it and says what is broken.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bench.dataset import Dataset, Problem, fingerprint_files
from bench.errors import ConfigError, DataError, MaskError, ProblemsError
from bench.masks import read_mask
from bench.media import image_size, list_images, most_common, read_image
from bench.video import RGB, Mask, ObjectInfo, Video, present_values

Progress = Callable[[int, int], None]
"""Called as ``progress(done, total)`` while a dataset is verified."""

MOST_IDS = 64
"""More different values than this in one mask are grey levels, not objects."""


# --- settings and names ---------------------------------------------------------------------


def choose_split(cls: type[Dataset], split: str | None) -> str:
    """The split asked for, or the default; :class:`ConfigError` names the ones there are."""
    if split is None:
        return cls.splits[0]
    if split not in cls.splits:
        raise ConfigError(
            f"{cls.name}: split",
            repr(split),
            f"one of {', '.join(cls.splits)}",
            did_you_mean(split, cls.splits) or "Choose one of these.",
        )
    return split


def refuse_unknown(cls: type[Dataset], settings: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raise :class:`ConfigError` for a setting that the dataset does not have."""
    for key in settings:
        if key not in known:
            raise ConfigError(
                f"{cls.name}: {key}",
                "an unknown setting",
                f"one of {', '.join(known)}" if known else "no settings",
                did_you_mean(key, known) or "Remove it.",
            )


def need_root(cls: type[Dataset], root: Path | None) -> Path:
    """The dataset's folder; :class:`DataError` where there is none."""
    if root is not None and root.is_dir():
        return root
    found = "no folder" if root is None or not root.exists() else "a file"
    raise DataError(root or cls.name, found, f"the folder of {cls.title}", cls.how_to_get)


def unknown_sequence(dataset: str, name: str, names: Sequence[str]) -> DataError:
    """The error for a sequence that a split does not have; it names the closest one."""
    return DataError(
        f"{dataset}/{name}",
        "no such sequence",
        f"one of {len(names)} sequences",
        did_you_mean(name, names) or f"The first of them: {', '.join(names[:5])}.",
    )


def did_you_mean(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}?" if near else ""


# --- files ----------------------------------------------------------------------------------

LONGEST_LINK = 1024


def follow(path: Path) -> Path:
    """Follow a folder that is a link, also one flattened to a text file.

    Git and some archive tools write a symbolic link as a small text file that holds its target
    where the file system has no links. DAVIS-2017's ``JPEGImages/480p`` often is one. Real links
    need nothing.

    Returns:
        ``path`` itself, or the folder that the text file names, relative to the file's folder.

    Raises:
        DataError: the text names no folder.
    """
    if not path.is_file() or path.stat().st_size > LONGEST_LINK:
        return path
    try:
        target = path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        return path
    if not target or "\n" in target:
        return path
    folder = path.parent / target
    if not folder.is_dir():
        raise DataError(
            path,
            f"a flattened link to {target!r}, which is no folder",
            "a folder, a link to one, or a text file with the relative path of one",
            f"Put the folder at {folder} or replace the file by the folder itself.",
        )
    return folder


def read_lines(path: Path) -> list[str]:
    """The lines of a text file without blank ones and surrounding space."""
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def folder_names(folder: Path) -> list[str]:
    """Names of the folders inside a folder, sorted; hidden ones are left out."""
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


# --- sequences ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clip:
    """One sequence on disk.

    Attributes:
        name: the sequence's name.
        folder: where its frames are.
        frames: its frame files in order.
        masks: mask files by index of their frame.
        problems: what listing and pairing found: missing files and folders. Nothing has been
            decoded yet.
    """

    name: str
    folder: Path
    frames: list[Path]
    masks: dict[int, Path]
    problems: list[Problem] = field(default_factory=list)

    def fingerprint(self) -> str:
        """Hash of the files; see :func:`bench.dataset.fingerprint_files`."""
        self.require_complete()
        return fingerprint_files(self.frames, list(self.masks.values()))

    def require_complete(self) -> None:
        """Raise :class:`ProblemsError` that lists every missing file, if any is."""
        errors = [str(problem) for problem in self.problems if problem.severity == "error"]
        if errors:
            raise ProblemsError(
                self.folder, errors, "Extract the dataset again; `verify` checks all of it."
            )


def pair(
    name: str,
    frame_folder: Path,
    mask_folder: Path,
    needs_mask: Literal["all", "first"] | Sequence[str],
    names: Sequence[str] | None = None,
) -> Clip:
    """List a sequence's frames and masks and pair them by name.

    Args:
        name: the sequence's name.
        frame_folder: folder of its frames.
        mask_folder: folder of its masks.
        needs_mask: which frames must have a mask: ``"all"``, the ``"first"``, or the ones named.
        names: frame names of an official list; None takes what is in the folder and expects it
            to count from 0 without a gap.

    Returns:
        The clip; whatever is missing is in its ``problems``.
    """
    problems: list[Problem] = []

    def listed(folder: Path, what: str) -> dict[str, Path]:
        if not folder.is_dir():
            problems.append(Problem(folder, f"missing folder of {what}"))
            return {}
        found = {path.stem: path for path in list_images(folder)}
        if not found:
            problems.append(Problem(folder, f"empty folder of {what}"))
        return found

    frames = listed(frame_folder, "frames")
    masks = listed(mask_folder, "masks")
    if names is None:
        names = list(frames)
        if frames:
            problems += _gaps(frame_folder, names, masks)
    if frames:  # one line for a missing folder is enough; one per frame would bury it
        problems += [
            Problem(frame_folder / f"{stem}.jpg", "missing frame")
            for stem in dict.fromkeys([*names, *masks])
            if stem not in frames
        ]
    if masks:
        required = names if needs_mask == "all" else names[:1]
        if not isinstance(needs_mask, str):
            required = needs_mask
        problems += [
            Problem(mask_folder / f"{stem}.png", "missing mask")
            for stem in required
            if stem not in masks
        ]
    present = [stem for stem in names if stem in frames]
    paired = {index: masks[stem] for index, stem in enumerate(present) if stem in masks}
    return Clip(name, frame_folder, [frames[stem] for stem in present], paired, problems)


def _gaps(folder: Path, names: Sequence[str], masks: Mapping[str, Path]) -> list[Problem]:
    """Frames left out of the numbering 00000, 00001, ... that have no mask either.

    A frame whose mask is there is reported by the caller, by its own name.
    """
    if not all(name.isdigit() for name in names):
        return []
    have = {int(name) for name in [*names, *masks] if name.isdigit()}
    return [
        Problem(folder / f"{number:0{len(names[0])}d}.jpg", "missing frame")
        for number in range(max(have))
        if number not in have
    ]


def wrong_size(path: Path, found: tuple[int, ...], expected: tuple[int, int]) -> str:
    """How a size mismatch is worded."""
    return f"{found[1]}x{found[0]} pixels where {expected[1]}x{expected[0]} are expected"


def read_ids(path: Path) -> Mask:
    """Read a mask of object ids, uint8 ``(H, W)``.

    Raises:
        MaskError: as :func:`bench.masks.read_mask`, and for a mask with so many values that they
            are the grey levels of an anti-aliased or resized picture.
    """
    mask = read_mask(path)
    count = len(present_values(mask))
    if count > MOST_IDS:
        raise MaskError(
            path,
            f"{count} different values",
            f"object ids, at most {MOST_IDS} of them",
            "An anti-aliased or interpolated mask holds no ids; take the original file.",
        )
    return mask


def read_binary(path: Path) -> Mask:
    """Read a mask with one object, written as 0/255 or 0/1, to uint8 0/1 ``(H, W)``.

    Raises:
        MaskError: as :func:`bench.masks.read_mask`, and for any other value.
    """
    mask = read_mask(path)
    values = present_values(mask)
    if not (set(values) <= {0, 255} or set(values) <= {0, 1}):
        odd = [value for value in values if value not in (0, 255)]
        shown = ", ".join(map(str, odd[:5])) + (", ..." if len(odd) > 5 else "")
        raise MaskError(
            path,
            f"values other than 0 and 255 ({shown})",
            "0 for background and 255 for the object",
            "An anti-aliased or interpolated mask has lost its edge; take the original file.",
        )
    binary: Mask = np.not_equal(mask, 0).view(np.uint8)
    return binary


def clip_video(
    dataset: str,
    clip: Clip,
    reader: Callable[[Path], Mask],
    objects: Mapping[int, ObjectInfo] | None = None,
    scorable: bool = True,
) -> Video:
    """Make a lazy video of a clip; only the first frame's header is read.

    Args:
        dataset: name of the dataset.
        clip: the files.
        reader: reads one mask to ids.
        objects: what is known of its objects.
        scorable: whether its masks are enough to score predictions.

    Raises:
        DataError: files are missing.
    """
    clip.require_complete()
    size = image_size(clip.frames[0])

    def checked(path: Path, array: Any) -> Any:
        if array.shape[:2] != size:
            raise DataError(
                path,
                f"{array.shape[1]}x{array.shape[0]} pixels",
                f"{size[1]}x{size[0]} like the sequence's first frame",
                "Take frames and masks of one resolution.",
            )
        return array

    def load_frame(index: int) -> RGB:
        image: RGB = checked(clip.frames[index], read_image(clip.frames[index]))
        return image

    def load_mask(index: int) -> Mask:
        if index not in clip.masks:
            raise DataError(
                clip.frames[index], "no mask", "an annotated frame", "See Video.annotated."
            )
        mask: Mask = checked(clip.masks[index], reader(clip.masks[index]))
        return mask

    return Video(
        dataset=dataset,
        name=clip.name,
        frame_names=tuple(path.stem for path in clip.frames),
        size=size,
        load_frame=load_frame,
        load_mask=load_mask,
        annotated=tuple(sorted(clip.masks)),
        objects=dict(objects or {}),
        scorable=scorable,
    )


# --- faults ---------------------------------------------------------------------------------


def clip_problems(clip: Clip, reader: Callable[[Path], Mask]) -> list[Problem]:
    """Decode every frame and mask of a clip and list what is missing, broken or of odd size.

    Sizes are held against the most common one of the frames, so that one odd frame is the one
    that is named.
    """
    problems = list(clip.problems)
    sizes: dict[Path, tuple[int, int]] = {}

    def read(path: Path, reader: Callable[[Path], Any]) -> None:
        try:
            height, width = reader(path).shape[:2]
            sizes[path] = (height, width)
        except DataError as error:
            problems.append(Problem(path, error.found))

    for path in clip.frames:
        read(path, read_image)
    usual = most_common(list(sizes.values())) if sizes else None
    for path in clip.masks.values():
        read(path, reader)
    problems += [
        Problem(path, wrong_size(path, size, usual))
        for path, size in sizes.items()
        if usual is not None and size != usual
    ]
    return problems


def run_checks(
    checks: Iterable[Callable[[], list[Problem]]], progress: Progress | None = None
) -> list[Problem]:
    """Run checks on a thread pool (decoding releases the GIL) and join their problems in order."""
    jobs = list(checks)
    problems: list[Problem] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for done, found in enumerate(pool.map(lambda job: job(), jobs), start=1):
            problems += found
            if progress is not None:
                progress(done, len(jobs))
    return problems


def fewer_than_official(path: Path, found: int, official: int) -> list[Problem]:
    """A note where a list is shorter than the official one."""
    if found >= official:
        return []
    return [Problem(path, f"{found} of the {official} official sequences", "note")]
