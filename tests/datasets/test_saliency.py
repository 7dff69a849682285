from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from bench.dataset import Problem, find_root
from bench.errors import ConfigError, DataError, MaskError
from bench.registry import get_dataset
from datasets.saliency import Ecssd, Msra10k
from tests.datasets.layouts import square, write_grey, write_jpeg


@pytest.fixture
def ecssd(tmp_path: Path) -> Path:
    root = tmp_path / "ECSSD"
    for i in range(1, 4):
        write_jpeg(root / f"images/{i:04d}.jpg", i)
        write_grey(root / f"ground_truth_mask/{i:04d}.png", square(255, i))
    return root


def errors(dataset: Ecssd | Msra10k) -> list[Problem]:
    return [problem for problem in dataset.verify() if problem.severity == "error"]


def test_registered_by_name() -> None:
    assert get_dataset("ecssd")[0] is Ecssd
    assert get_dataset("msra10k")[0] is Msra10k


def test_reads_in_order(ecssd: Path) -> None:
    dataset = Ecssd(ecssd)
    assert [image.name for image in dataset] == ["0001", "0002", "0003"]
    assert_array_equal(dataset[1].mask, square(1, 2))
    assert dataset[1].image.shape == (24, 32, 3)
    with pytest.raises(IndexError):
        dataset[3]
    assert [str(problem.what) for problem in dataset.verify()] == ["3 of the 1000 official images"]


def test_greys_are_cut_at_128(ecssd: Path) -> None:
    levels = np.tile(np.array([0, 127, 128, 255], np.uint8), (24, 8))
    write_grey(ecssd / "ground_truth_mask/0001.png", levels)
    assert_array_equal(Ecssd(ecssd)[0].mask, np.tile([0, 0, 1, 1], (24, 8)))


def test_one_bit_masks_are_not_empty(ecssd: Path) -> None:
    Image.fromarray(square() > 0).save(ecssd / "ground_truth_mask/0001.png")
    assert_array_equal(Ecssd(ecssd)[0].mask, square())


def test_faults_are_named(
    ecssd: Path, truncate: Callable[[Path], None], spoil_rgb: Callable[[Path], None]
) -> None:
    masks = ecssd / "ground_truth_mask"
    truncate(ecssd / "images/0001.jpg")
    spoil_rgb(masks / "0002.png")
    write_grey(masks / "0003.png", square(255, 1, (20, 30)))
    write_grey(masks / "0004.png", square(255))
    dataset = Ecssd(ecssd)
    assert [problem.path for problem in errors(dataset)] == [
        ecssd / "images/0004.jpg",
        ecssd / "images/0001.jpg",
        masks / "0002.png",
        masks / "0003.png",
    ]
    with pytest.raises(DataError, match=r"0001.jpg.*truncated"):
        dataset[0]
    with pytest.raises(MaskError, match="RGB"):
        dataset[1]
    with pytest.raises(DataError, match=r"0003.png: found 30x20"):
        dataset[2]
    (masks / "0002.png").unlink()
    assert Problem(masks / "0002.png", "missing mask") in errors(dataset)
    with pytest.raises(MaskError, match="no such file"):
        dataset[1]


def test_wrong_layouts(ecssd: Path) -> None:
    with pytest.raises(DataError, match="Imgs"):
        Msra10k(ecssd)
    with pytest.raises(ConfigError, match="no settings"):
        Ecssd(ecssd, size=3)
    with pytest.raises(ConfigError, match="one of all"):
        Ecssd(ecssd, "train")
    shutil.rmtree(ecssd / "images")
    (ecssd / "images").mkdir()
    with pytest.raises(DataError, match="no JPEG"):
        Ecssd(ecssd)


def test_msra10k_from_the_same_images(ecssd: Path, tmp_path: Path) -> None:
    folder = tmp_path / "MSRA10K/Imgs"
    folder.mkdir(parents=True)
    for path in [*ecssd.glob("images/*"), *ecssd.glob("ground_truth_mask/*")]:
        shutil.copy(path, folder)
    dataset = Msra10k(find_root(Msra10k, tmp_path))
    assert not errors(dataset)
    for ours, theirs in zip(dataset, Ecssd(ecssd), strict=True):
        assert ours.name == theirs.name
        assert_array_equal(ours.image, theirs.image)
        assert_array_equal(ours.mask, theirs.mask)
    (folder / "0002.jpg").unlink()
    assert errors(Msra10k(folder.parent)) == [Problem(folder / "0002.jpg", "missing image")]


def test_real_ecssd(shared_dir: Path) -> None:
    dataset = Ecssd(find_root(Ecssd, shared_dir / "data"))
    assert len(dataset) == 1000
    assert dataset.verify() == []
    assert set(np.unique(dataset[0].mask)) == {0, 1}
