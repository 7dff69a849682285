"""Images, folders of frames and video files, in and out.

Frames are always uint8 RGB ``(H, W, 3)``. Orientation tags of photographs are ignored, because
annotations never follow them. PyAV is imported inside the functions that need it: scoring masks
needs no video decoder and should not pay for one.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from bench.errors import DataError, ProblemsError
from bench.video import RGB, Mask, Video

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
PNG_START, PNG_END = b"\x89PNG", b"IEND\xaeB`\x82"


# --- images ---------------------------------------------------------------------------------


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which ``frame2`` comes before ``frame10``."""
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part)


def _is_complete(data: bytes) -> bool:
    """Whether a JPEG or PNG ends as it should; trailing zeros, which some tools add, are fine."""
    if data.startswith(JPEG_START):
        return data.rstrip(b"\0").endswith(JPEG_END)
    return data.startswith(PNG_START) and data.endswith(PNG_END)


def read_image(path: Path) -> RGB:
    """Read a JPEG or PNG file to uint8 RGB ``(H, W, 3)``.

    OpenCV decodes almost three times faster than PIL, but ``cv2.imread`` fills the missing part
    of a truncated JPEG with grey and says nothing. So only files whose end marker is in place go
    to OpenCV; PIL, which refuses truncated data, judges the others.

    Raises:
        DataError: no such file, not an image, or truncated.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            path, error.strerror or str(error), "an image file", "Check the path."
        ) from None
    if _is_complete(data):
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if decoded is not None:
            return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), dtype=np.uint8)
    try:
        with Image.open(io.BytesIO(data)) as opened:
            return np.array(opened.convert("RGB"), dtype=np.uint8)
    # PIL raises SyntaxError for broken PNG chunks and ValueError for some broken headers.
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(
            path,
            f"an unreadable or truncated image ({_reason(error)})",
            "a complete JPEG or PNG file",
            "Download or extract it again.",
        ) from error


def _reason(error: Exception) -> str:
    """An exception's message, without the address of the buffer that PIL puts into some."""
    text = str(error)
    return "not an image" if "cannot identify" in text else text


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) of an image file, from its header alone.

    Raises:
        DataError: no such file, or not an image.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, SyntaxError, ValueError) as error:
        found = "no such file" if not path.exists() else f"an unreadable image ({_reason(error)})"
        raise DataError(path, found, "an image file", "Download or extract it again.") from error


def list_images(folder: Path) -> list[Path]:
    """The JPEG and PNG files of a folder in natural order; hidden files are left out."""
    found = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
    return sorted(found, key=lambda path: natural_key(path.name))


def is_video_file(path: Path) -> bool:
    """Whether a path is a file with the suffix of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()


# --- video in -------------------------------------------------------------------------------


def open_video(path: Path, dataset: str = "frames", name: str | None = None) -> Video:
    """Open a video file or a folder of frames as a video without masks.

    Frames of a folder are its JPEG and PNG files in natural order and keep their names; frames of
    a video file are called ``00000``, ``00001`` and so on.

    Args:
        path: the file or folder.
        dataset: what the video gives as its dataset.
        name: its name; by default that of the file (without suffix) or folder.

    Raises:
        DataError: nothing there, no frames, frames of unequal size, or an unreadable file.
    """
    if path.is_dir():
        return _open_folder(path, dataset, name or path.resolve().name)
    if path.is_file():
        return _open_file(path, dataset, name or path.stem)
    raise DataError(
        path, "nothing", "a video file or a folder of JPEG or PNG frames", "Check the path."
    )


def _no_mask(where: str | Path) -> DataError:
    return DataError(where, "no masks", "none to be asked for", "This video is unlabelled.")


def _open_folder(folder: Path, dataset: str, name: str) -> Video:
    paths = list_images(folder)
    if not paths:
        raise DataError(
            folder, "no JPEG or PNG file", "a folder of frames", "Name the folder with the frames."
        )
    problems = folder_problems(paths)
    if problems:
        raise ProblemsError(folder, problems, "Frames of one video share one size and each a name.")

    def load_mask(index: int) -> Mask:
        raise _no_mask(paths[index])

    return Video(
        dataset=dataset,
        name=name,
        frame_names=tuple(path.stem for path in paths),
        size=image_size(paths[0]),
        load_frame=lambda index: read_image(paths[index]),
        load_mask=load_mask,
        annotated=(),
    )


def folder_problems(paths: list[Path]) -> list[str]:
    """What keeps image files from being one video, a line each; only headers are read.

    Sizes are held against the most common one, so that a single odd frame is the one named.
    """
    problems: list[str] = []
    sizes: dict[Path, tuple[int, int]] = {}
    names: dict[str, Path] = {}
    for path in paths:
        if path.stem in names:
            problems.append(f"{path}: the same name as {names[path.stem].name} but for the suffix")
        names.setdefault(path.stem, path)
        try:
            sizes[path] = image_size(path)
        except DataError as error:
            problems.append(f"{path}: {error.found}")
    if sizes:
        height, width = most_common(list(sizes.values()))
        problems += [
            f"{path}: {w}x{h} pixels where most frames have {width}x{height}"
            for path, (h, w) in sizes.items()
            if (h, w) != (height, width)
        ]
    return problems


def most_common(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """The most common of some sizes; the first of them where several are."""
    return max(dict.fromkeys(sizes), key=sizes.count)


def _open_file(path: Path, dataset: str, name: str) -> Video:
    reader = VideoFile(path)

    def load_mask(index: int) -> Mask:
        raise _no_mask(path)

    return Video(
        dataset=dataset,
        name=name,
        frame_names=tuple(f"{index:05d}" for index in range(len(reader))),
        size=reader.size,
        load_frame=reader.read,
        load_mask=load_mask,
        annotated=(),
    )


class VideoFile:
    """Frames of a video file by index; holds one frame and one decoder, however long the video.

    Reading forwards continues where the last read stopped. Reading backwards starts again from
    the beginning: slower than seeking, but the same pixels for any file, whereas seeking by time
    stamp is off by frames in files with odd time stamps.

    Args:
        path: the file.

    Raises:
        DataError: no video stream, an unreadable file, or frames of unequal size. One pass over
            the file finds these out and counts the frames, because the counts that containers
            state are often absent or wrong.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()  # load_frame may be called from a prefetching thread
        self._decoder: Iterator[Any] | None = None
        self._next = 0
        self._last: tuple[int, RGB] | None = None
        sizes: dict[tuple[int, int], int] = {}
        count = 0
        for frame in self._decode():
            size = (frame.width, frame.height) if _turned(frame) else (frame.height, frame.width)
            sizes.setdefault(size, count)
            count += 1
        if not count:
            raise DataError(
                path, "a video without frames", "at least one frame", "Export the video again."
            )
        if len(sizes) > 1:
            listed = ", ".join(f"{w}x{h} from frame {at}" for (h, w), at in sizes.items())
            raise DataError(
                path, f"frames of unequal size ({listed})", "one size", "Cut or scale the video."
            )
        self.size = next(iter(sizes))
        self._count = count

    def __len__(self) -> int:
        return self._count

    def _decode(self) -> Iterator[Any]:
        """All frames from the first on; closing the generator closes the file."""
        import av

        try:
            with av.open(str(self.path)) as container:
                if not container.streams.video:
                    raise DataError(
                        self.path, "no video stream", "a video file", "Name another file."
                    )
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                yield from container.decode(stream)
        except av.FFmpegError as error:
            raise DataError(
                self.path,
                f"a file that cannot be decoded ({error.strerror})",
                "a complete video file",
                "Export or download it again.",
            ) from error

    def read(self, index: int) -> RGB:
        """Decode frame ``index``; uint8 RGB ``(H, W, 3)``, an array of its own."""
        if not 0 <= index < self._count:
            raise IndexError(f"frame {index} of {self._count} in {self.path}")
        with self._lock:
            if self._last is not None and self._last[0] == index:
                return self._last[1].copy()
            if self._decoder is None or index < self._next:
                self._decoder, self._next = self._decode(), 0
            for frame in self._decoder:
                self._next += 1
                if self._next == index + 1:
                    image = _upright(frame)
                    self._last = (index, image)
                    if self._next == self._count:
                        self._decoder = None  # the last frame: let go of the file
                    return image.copy()
        raise DataError(
            self.path,
            f"{self._next} frames, {self._count} when it was opened",
            "a file that does not change",
            "Open it again.",
        )


def _turned(frame: Any) -> bool:
    """Whether a frame is stored on its side, as phones do with upright recordings."""
    return bool(frame.rotation % 180)


def _upright(frame: Any) -> RGB:
    image = frame.to_ndarray(format="rgb24")
    upright: RGB = np.ascontiguousarray(np.rot90(image, k=round(frame.rotation / 90)))
    return upright


# --- video out ------------------------------------------------------------------------------


def write_video(path: Path, frames: Iterable[RGB], fps: float = 24.0) -> int:
    """Write frames as an H.264 MP4 that browsers and slide programs play.

    Odd widths and heights are padded to even ones by repeating the last column or row, because
    the 4:2:0 colour format has no odd sizes. Frames are encoded as they come.

    Args:
        path: the file to write; it appears only when it is complete.
        frames: uint8 RGB ``(H, W, 3)``, all of one size.
        fps: frames per second.

    Returns:
        How many frames were written.

    Raises:
        DataError: no frames, or frames of unequal size.
    """
    from fractions import Fraction

    import av

    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise DataError(path, "no frames to write", "at least one", "Check the input.")
    height, width = first.shape[:2]
    partial = path.with_name(f".{path.name}.partial")
    count = 0
    try:
        with av.open(str(partial), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
            stream.height, stream.width = height + height % 2, width + width % 2
            stream.pix_fmt = "yuv420p"
            stream.options = {"crf": "18", "preset": "veryfast"}
            for image in chain([first], iterator):
                if image.shape[:2] != (height, width):
                    raise DataError(
                        path,
                        f"frame {count} of {image.shape[1]}x{image.shape[0]} pixels",
                        f"{width}x{height} like the first",
                        "Frames of one video share one size.",
                    )
                even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
                container.mux(stream.encode(frame))
                count += 1
            container.mux(stream.encode())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return count
