"""Pseudo-masks of images: what the detector finds, and no human mask anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.errors import ConfigError
from bench.method import LabelRegime
from bench.training import CURVE, read_header, regime_from, train
from bench.video import LabelledImage, Mask
from methods.adversarial.checks import check
from methods.adversarial.domains import open_domains
from methods.adversarial.pseudo_masks import DETECTOR, PseudoMasked
from methods.adversarial.settings import AdaptationSettings, DomainSettings, NetworkSettings
from methods.clips import resize_short_side
from methods.shls.offline import SaliencyMaps
from methods.shls.offline.saliency import clean, detect
from tests.methods.adversarial.shapes import ShapeImages, ShapeVideos
from tests.methods.adversarial.test_training import BOTH, SMALL, asked, task_of

PSEUDO = DomainSettings(image_masks="saliency")


class Unreadable(LabelledImage):
    """An image whose mask may not be looked at."""

    @property  # type: ignore[override]
    def mask(self) -> Mask | None:
        raise AssertionError("a human mask was read")


class UnreadableImages(ShapeImages):
    """Images of discs whose masks raise."""

    def __getitem__(self, index: int) -> LabelledImage:
        one = super().__getitem__(index)
        hidden = object.__new__(Unreadable)
        object.__setattr__(hidden, "name", one.name)
        object.__setattr__(hidden, "image", one.image)
        return hidden


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where detected saliency is kept


def test_they_are_the_detectors_at_the_size_at_which_images_are_kept(tmp_path: Path) -> None:
    images = ShapeImages()
    found = PseudoMasked(images, 40)[3]
    small = resize_short_side(images[3].image, 40)
    assert np.array_equal(found.image, small)
    wanted = (clean(detect(small, DETECTOR)) > 0).astype(np.uint8)
    assert found.mask is not None
    assert found.mask.dtype == np.uint8
    assert np.array_equal(found.mask, wanted)
    assert set(np.unique(found.mask)) == {0, 1}
    truth = images[3].mask
    native = PseudoMasked(images, None)[3].mask
    assert truth is not None
    assert native is not None
    inside, outside = (float(native[truth == value].mean()) for value in (1, 0))
    assert inside > 2 * outside, "a bright disc on grey noise stands out"


def test_they_are_kept_where_shls_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = PseudoMasked(ShapeImages(), None)[5]
    maps = SaliencyMaps(DETECTOR, cache=Path("checkpoints", "cache", "saliency"))
    path = maps.cache_path(first.image)
    assert path is not None
    assert path.is_file()

    def never(image: Any, detector: str) -> Any:
        raise AssertionError("detected anew")

    monkeypatch.setattr("methods.shls.offline.saliency.detect", never)
    again = PseudoMasked(ShapeImages(), None)[5]
    assert np.array_equal(first.mask, again.mask)  # type: ignore[arg-type]


def test_no_human_mask_is_read_in_a_whole_training(tmp_path: Path) -> None:
    """Supervision, clusters, adversary, the curve: with masks that raise when looked at."""
    videos = ShapeVideos()
    with pytest.raises(AssertionError, match="human mask"):
        next(iter(UnreadableImages())).mask  # noqa: B018
    request = asked(tmp_path / "t", "3it")
    task = task_of(request, data=[UnreadableImages(), videos], alignments=BOTH, domains=PSEUDO)
    step = task.samples[0]
    assert set(step.images.foreground.unique().tolist()) == {0, 1}
    assert (step.images.classes == 255).all()
    assert step.images.supervised.all()
    assert not step.clips.supervised.any()
    header = read_header(train(task, request))
    assert videos.masks_read == []
    regime = regime_from(header)
    assert regime.image_labels == "none"
    assert regime.images == 20
    assert regime.annotated_masks == 0
    assert regime.video_labels == "none"
    assert f"by the saliency detector {DETECTOR}" in regime.note
    assert "20 unlabelled images" in regime.summary
    # The held-out score compares with pseudo-masks, and is called so.
    assert 0 <= header["pseudo_mask_iou"] <= 1
    assert "image_iou" not in header
    assert "pseudo_mask_iou" in (tmp_path / "t" / CURVE).read_text().splitlines()[0]


def test_masks_that_are_looked_at_would_show(tmp_path: Path) -> None:
    task = task_of(asked(tmp_path), data=[UnreadableImages(), ShapeVideos()])
    with pytest.raises(AssertionError, match="human mask"):
        task.samples[0]
    assert task.score == "image_iou"


def test_steps_are_deterministic_and_draw_what_those_with_human_masks_draw(tmp_path: Path) -> None:
    data = [ShapeImages(), ShapeVideos()]
    pseudo, again, human = (
        task_of(asked(tmp_path), data=data, domains=domains).samples[2].images
        for domains in (PSEUDO, PSEUDO, DomainSettings())
    )
    assert all(torch.equal(one, other) for one, other in zip(pseudo, again, strict=True))
    assert torch.equal(pseudo.frames, human.frames)
    assert not torch.equal(pseudo.foreground, human.foreground)


def test_held_out_masks_are_the_detectors_too() -> None:
    settings = AdaptationSettings(**(SMALL | {"domains": PSEUDO, "short_side": 40}))
    domains = open_domains(NetworkSettings(), settings, [UnreadableImages()])
    image, labels = domains.held_out.picture(0)
    assert image.shape[:2] == labels.shape[:2]
    assert min(image.shape[:2]) == 40
    assert np.array_equal(labels[..., 0], clean(detect(image, DETECTOR)) > 0)


@pytest.mark.parametrize("head", ["semantic", "both"])
def test_classes_cannot_be_learned_from_them(head: Any) -> None:
    network = NetworkSettings(head=head, classes=2)
    domains = PSEUDO.model_copy(update={"categories": ("disc",)})
    settings = AdaptationSettings(**(SMALL | {"domains": domains}))
    with pytest.raises(ConfigError, match=r"network\.head to foreground"):
        check(network, settings)
    check(NetworkSettings(), AdaptationSettings(**(SMALL | {"domains": PSEUDO})))


def test_without_image_labels_the_curve_alone_needs_them(tmp_path: Path) -> None:
    """The oracle on masks of videos, without any mask of an image."""
    domains = PSEUDO.model_copy(update={"use_image_labels": False, "labelled_videos": 1.0})
    task = task_of(asked(tmp_path), data=[UnreadableImages(), ShapeVideos()], domains=domains)
    assert task.score == "pseudo_mask_iou"
    assert isinstance(task.regime, LabelRegime)
    assert task.regime.images == 0
    assert task.regime.video_labels == "mask"
    assert (task.held_out[0].foreground != 255).all()
