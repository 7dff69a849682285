"""Dataset layouts made by code, so that the adapters are tested without any download."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.masks import write_mask
from tests.datasets.layouts import square, write_grey, write_jpeg


@pytest.fixture
def davis16(tmp_path: Path) -> Path:
    """DAVIS-2016 with val at 480p (two sequences of four frames) and train at 240p (one)."""
    root = tmp_path / "DAVIS2016"
    for resolution, split, names in (("480p", "val", ["b", "a"]), ("240p", "train", ["c"])):
        lines = []
        for name in names:
            for i in range(4):
                jpeg = f"JPEGImages/{resolution}/{name}/{i:05d}.jpg"
                png = f"Annotations/{resolution}/{name}/{i:05d}.png"
                write_jpeg(root / jpeg, i)
                write_grey(root / png, square(255, i))
                lines.append(f"/{jpeg} /{png}")
        path = root / "ImageSets" / resolution / f"{split}.txt"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def davis17(tmp_path: Path) -> Path:
    """DAVIS-2017 with val and test-dev, two sequences of four frames with ids 1 and 5."""
    root = tmp_path / "DAVIS2017"
    for name in ("dogs-jump", "train"):
        masks = root / "Annotations" / "480p" / name
        masks.mkdir(parents=True)
        for i in range(4):
            write_jpeg(root / "JPEGImages" / "480p" / name / f"{i:05d}.jpg", i)
            write_mask(masks / f"{i:05d}.png", np.maximum(square(1, i), square(5, 20)))
    lists = root / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("train\n\ndogs-jump\n")
    (lists / "test-dev.txt").write_text("dogs-jump\n")
    return root


@pytest.fixture
def ytvos(tmp_path: Path) -> Path:
    """YouTube-VOS with one clip in train and one in valid; object 2 enters at frame 00010."""
    root = tmp_path / "YouTubeVOS"
    frames = [f"{i:05d}" for i in range(0, 20, 5)]
    objects = {
        "1": {"category": "dog", "frames": frames},
        "2": {"category": "unicorn", "frames": frames[2:]},
    }
    for split, clip in (("train", "t0"), ("valid", "v0")):
        masks = root / split / "Annotations" / clip
        masks.mkdir(parents=True)
        for i, name in enumerate(frames):
            write_jpeg(root / split / "JPEGImages" / clip / f"{name}.jpg", i)
            if split == "train" or i in (0, 2):
                ids = np.maximum(square(1, i), square(2, 20) if i >= 2 else np.uint8(0))
                write_mask(masks / f"{name}.png", ids)
        listed = {"1": objects["1"]} if split == "train" else objects
        if split == "train":
            listed = {**listed, "2": {"category": "cat", "frames": frames[2:]}}
        meta = {"videos": {clip: {"objects": listed}}}
        (root / split / "meta.json").write_text(json.dumps(meta))
    return root


@pytest.fixture
def truncate() -> Callable[[Path], None]:
    def cut(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) * 2 // 3])

    return cut


@pytest.fixture
def spoil_rgb() -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
        rgb.save(path)

    return spoil


@pytest.fixture
def spoil_antialias() -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        """Scale a mask there and back with smoothing, as picture editors do."""
        with Image.open(path) as image:
            grey = Image.fromarray(np.array(image.convert("L")))
        small = grey.resize((grey.width // 2, grey.height // 3), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        small.resize(grey.size, Image.Resampling.BICUBIC).save(buffer, "PNG")
        path.write_bytes(buffer.getvalue())

    return spoil
