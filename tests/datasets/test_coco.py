from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bench.dataset import find_root
from bench.errors import ConfigError, DataError
from bench.registry import get_dataset
from datasets.coco import Coco
from tests.datasets.layouts import write_jpeg

# pycocotools calls NumPy the old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

H, W = 24, 32


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    mask = np.zeros((H, W), bool)
    mask[top:bottom, left:right] = True
    return mask


def ring(top: int, left: int, bottom: int, right: int) -> list[float]:
    """A rectangle as a polygon; on whole numbers it fills exactly the pixels of ``box``."""
    return [left, top, right, top, right, bottom, left, bottom]


def run_lengths(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, Any]:
    """Uncompressed run lengths, columns first, starting with background; by hand."""
    counts, value, run = [], False, 0
    for pixel in mask.T.ravel():
        if bool(pixel) != value:
            counts.append(run)
            value, run = bool(pixel), 0
        run += 1
    return {"size": list(mask.shape), "counts": [*counts, run]}


def entry(segmentation: Any, area: float, category: int = 1, crowd: int = 0) -> dict[str, Any]:
    return {
        "image_id": 1,
        "category_id": category,
        "segmentation": segmentation,
        "area": area,
        "iscrowd": crowd,
    }


Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def build(*annotations: dict[str, Any], images: int = 1) -> Path:
        root = tmp_path / "COCO"
        for i in range(1, images + 1):
            write_jpeg(root / f"train2017/{i:012d}.jpg", i, (H, W))
        content = {
            "images": [
                {"id": i, "file_name": f"{i:012d}.jpg", "height": H, "width": W}
                for i in range(1, images + 1)
            ],
            "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "dog"}],
            "annotations": [{"id": 100 + i, **a} for i, a in enumerate(annotations)],
        }
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations/instances_train2017.json").write_text(json.dumps(content))
        return root

    return build


def test_registered_by_name() -> None:
    assert get_dataset("coco-val2017") == (Coco, "val2017")


def test_polygon_with_several_rings(make: Make) -> None:
    rings = [ring(2, 2, 6, 8), ring(10, 20, 20, 30)]
    image = Coco(make(entry(rings, 124.0, 3)))[0]
    assert image.name == "000000000001"
    assert_array_equal(image.mask, box(2, 2, 6, 8) | box(10, 20, 20, 30))
    assert image.categories == {1: "dog"}


def test_ring_inside_a_ring_is_no_hole(make: Make) -> None:
    image = Coco(make(entry([ring(2, 2, 20, 20), ring(5, 5, 10, 10)], 324)))[0]
    assert_array_equal(image.mask, box(2, 2, 20, 20))


@pytest.mark.parametrize("compressed", [False, True])
def test_run_lengths_with_a_hole(make: Make, compressed: bool) -> None:
    expected = box(2, 3, 20, 25) & ~box(8, 8, 12, 14)
    segmentation = run_lengths(expected)
    if compressed:
        from pycocotools import mask as coco_mask

        encoded = coco_mask.frPyObjects(segmentation, H, W)
        segmentation = {"size": [H, W], "counts": encoded["counts"].decode()}
    image = Coco(make(entry(segmentation, float(expected.sum()))))[0]
    assert_array_equal(image.mask, expected)


def test_smaller_instance_is_on_top_whatever_the_order(make: Make) -> None:
    small, large = entry([ring(5, 5, 10, 10)], 25, 3), entry([ring(2, 2, 20, 20)], 324)
    for order in ([small, large], [large, small]):
        image = Coco(make(*order))[0]
        ids = {name: i for i, name in image.categories.items()}
        assert ids == {"dog": 1 + order.index(small), "person": 1 + order.index(large)}
        expected = np.where(
            box(5, 5, 10, 10), ids["dog"], np.where(box(2, 2, 20, 20), ids["person"], 0)
        )
        assert_array_equal(image.mask, expected)


def test_crowd_is_ignored_or_included(make: Make) -> None:
    crowd = entry(run_lengths(box(0, 0, 10, 32)), 320, crowd=1)
    one = entry([ring(5, 5, 15, 15)], 100)
    root = make(crowd, one)
    image = Coco(root)[0]
    expected = np.where(box(5, 5, 15, 15), 1, np.where(box(0, 0, 10, 32), 255, 0))
    assert_array_equal(image.mask, expected)
    assert image.categories == {1: "person"}
    included = Coco(root, include_crowd=True)[0]
    assert_array_equal(
        included.mask, np.where(box(5, 5, 15, 15), 2, np.where(box(0, 0, 10, 32), 1, 0))
    )


def test_min_area_and_categories(make: Make) -> None:
    root = make(
        entry([ring(1, 1, 3, 3)], 4),
        entry([ring(5, 5, 15, 15)], 100),
        entry([ring(16, 16, 22, 22)], 36, 3),
    )
    small = Coco(root, min_area=10)[0]
    expected = box(5, 5, 15, 15) + 2 * box(16, 16, 22, 22).astype(np.uint8)
    assert_array_equal(small.mask, expected + 255 * box(1, 1, 3, 3).astype(np.uint8))
    dogs = Coco(root, categories=["dog"])[0]
    assert_array_equal(dogs.mask, box(16, 16, 22, 22))
    with pytest.raises(ConfigError, match="Did you mean 'dog'"):
        len(Coco(root, categories=["dogs"]))
    with pytest.raises(ConfigError, match="a list"):
        Coco(root, categories="dog")
    with pytest.raises(ConfigError, match="min_area"):
        Coco(root, min_area=-1)
    with pytest.raises(ConfigError, match="Did you mean 'min_area'"):
        Coco(root, minarea=1)


def test_require_instances(make: Make) -> None:
    root = make(entry([ring(5, 5, 15, 15)], 100), images=3)
    assert len(Coco(root)) == 3
    assert not Coco(root)[2].mask.any()
    assert len(Coco(root, require_instances=True)) == 1
    assert len(Coco(root, require_instances=True, min_area=200)) == 0


def test_more_instances_than_ids(make: Make) -> None:
    cells = [(y, x) for y in range(H) for x in range(W)][:300]
    masks = [box(y, x, y + 1, x + 1) for y, x in cells]
    areas = [1.0 + (i % 7 == 0) for i in range(300)]  # a few are larger, spread over the list
    image = Coco(make(*(entry(run_lengths(m), a) for m, a in zip(masks, areas, strict=True))))[0]
    assert image.mask.max() == 255
    assert sorted(image.categories) == list(range(1, 255))
    values = image.mask.ravel()[:300]
    assert all(values[i] != 255 for i in range(0, 300, 7))
    kept = values[values != 255]
    assert_array_equal(kept, np.arange(1, 255))  # ids in the order of the file
    assert (values == 255).sum() == 46


def test_hidden_or_empty_instances(make: Make) -> None:
    root = make(entry([[1, 1, 3, 3]], 4), entry([ring(5, 5, 15, 15)], 100))
    image = Coco(root)[0]
    assert_array_equal(image.mask, box(5, 5, 15, 15))  # a ring of two points is no bounding box
    assert image.categories == {1: "person"}
    notes = [problem for problem in Coco(root).verify() if "annotation 100" in problem.what]
    assert [note.severity for note in notes] == ["note"]


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [H + 1, W], "counts": [(H + 1) * W]},
        {"size": [H, W], "counts": [5, 10_000_000]},
        {"size": [H, W]},
        "polygon",
    ],
)
def test_broken_segmentation(make: Make, segmentation: Any) -> None:
    dataset = Coco(make(entry(segmentation, 5)))
    with pytest.raises(DataError, match="annotation 100"):
        dataset[0]
    (problem,) = [p for p in dataset.verify() if p.severity == "error"]
    assert problem.what.startswith("annotation 100: a segmentation that cannot be decoded")


def test_faults_are_named(make: Make, truncate: Callable[[Path], None]) -> None:
    orphan = {**entry([ring(5, 5, 15, 15)], 100), "image_id": 99}
    root = make(orphan, images=4)
    images = [root / f"train2017/{i:012d}.jpg" for i in range(1, 5)]
    truncate(images[0])
    images[1].unlink()
    write_jpeg(images[2], 0, (20, 30))
    dataset = Coco(root)
    found = {p.path: p.what for p in dataset.verify() if p.severity == "error"}
    assert list(found) == [dataset.annotation_path, *images[:3]]
    assert "truncated" in found[images[0]]
    assert found[images[1]] == "missing image"
    for index in range(3):
        with pytest.raises(DataError, match=images[index].name):
            dataset[index]


def test_missing_parts(make: Make, tmp_path: Path) -> None:
    root = make()
    with pytest.raises(DataError, match=r"instances_val2017.json"):
        Coco(root, "val2017")
    with pytest.raises(DataError, match=r"cocodataset.org"):
        Coco(tmp_path / "gone")
    (root / "annotations/instances_train2017.json").write_text('{"images": []')
    with pytest.raises(DataError, match="another form"):
        len(Coco(root))


def test_real_coco(shared_dir: Path) -> None:
    dataset = Coco(find_root(Coco, shared_dir / "data"))
    assert len(dataset) == 128
    assert [p.what for p in dataset.verify() if p.severity == "error"] == []
    image = dataset[0]
    assert set(np.unique(image.mask)) - {0, 255} <= set(image.categories)
