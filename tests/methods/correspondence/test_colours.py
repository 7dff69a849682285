import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import rgb2lab
from torch.testing import assert_close

from bench.errors import ConfigError, DataError
from methods.correspondence.pretext.colours import (
    CENTROIDS,
    RELEASED_CENTROIDS,
    ab,
    drop_channels,
    fit_centroids,
    jitter,
    lab_targets,
    one_hot,
    quantise,
    resize_frame,
)


def random_frame(seed=0, size=(6, 9)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def test_ab_equals_another_librarys():
    frame = random_frame()
    expected = rgb2lab(frame)[..., 1:].transpose(2, 0, 1)
    assert np.abs(ab(frame).numpy() - expected).max() < 0.5
    red = np.zeros((1, 1, 3), np.uint8)
    red[..., 0] = 255
    assert ab(red).flatten().tolist() == pytest.approx([80.1, 67.2], abs=0.2)


@pytest.mark.parametrize("centroids", [CENTROIDS, RELEASED_CENTROIDS])
def test_quantise_finds_the_nearest(centroids):
    colours = torch.rand(2, 2, 4, 5, generator=torch.Generator().manual_seed(0)) * 120 - 60
    found = quantise(colours, centroids)
    for frame, y, x in np.ndindex(2, 4, 5):
        a, b = colours[frame, :, y, x].tolist()
        distances = [(a - p) ** 2 + (b - q) ** 2 for p, q in centroids]
        assert distances[int(found[frame, y, x])] == pytest.approx(min(distances), abs=1e-2)


@pytest.mark.parametrize("centroids", [CENTROIDS, RELEASED_CENTROIDS])
def test_palettes_hold_sixteen_colours_that_are_their_own_nearest(centroids):
    assert len(set(centroids)) == 16
    colours = torch.tensor(centroids).T[:, None]
    assert quantise(colours, centroids).flatten().tolist() == list(range(16))


def test_fit_centroids_finds_the_colours_of_plain_frames():
    colours = np.array([(200, 30, 30), (30, 200, 30), (30, 30, 200), (128, 128, 128)], np.uint8)
    frames = [np.full((20, 30, 3), colour, np.uint8) for colour in colours]
    expected = sorted(tuple(ab(frame)[:, 0, 0].tolist()) for frame in frames)
    assert np.abs(np.array(fit_centroids(frames, 4)) - np.array(expected)).max() < 0.01


def test_fit_centroids_is_a_fixed_point_and_repeats():
    frames = [random_frame(seed, (32, 32)) for seed in range(4)]
    fitted = fit_centroids(frames, 5, seed=3)
    assert fitted == fit_centroids(frames, 5, seed=3)
    points = torch.stack([ab(frame) for frame in frames])
    ids = quantise(points, fitted)
    for number, centroid in enumerate(fitted):
        mean = points.movedim(1, -1)[ids == number].mean(0)
        assert mean.tolist() == pytest.approx(centroid, abs=0.5)


def test_the_palette_fits_videos_better_than_the_released_one(shared_dir):
    folder = shared_dir / "data" / "DAVIS2016" / "JPEGImages" / "240p"
    paths = sorted(folder.glob("*/*.jpg"))[::20]
    if not paths:
        pytest.skip(f"No training frames of DAVIS-2016 in {folder}.")
    frames = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths]
    pixels = torch.stack([ab(resize_frame(frame, 32)) for frame in frames])
    errors = {}
    for centroids in (CENTROIDS, RELEASED_CENTROIDS):
        ids = quantise(pixels, centroids)
        nearest = torch.tensor(centroids)[ids].movedim(-1, 1)
        errors[centroids] = (pixels - nearest).square().sum(1).mean().item()
    assert errors[CENTROIDS] < 0.6 * errors[RELEASED_CENTROIDS]
    # k-means is done when each colour is the mean of the pixels that are nearest to it.
    ids = quantise(pixels, CENTROIDS)
    means = [pixels.movedim(1, -1)[ids == number].mean(0) for number in range(16)]
    assert np.abs(torch.stack(means).numpy() - np.array(CENTROIDS)).max() < 2.5


def test_fit_centroids_reads_red_first():
    frame = np.zeros((8, 8, 3), np.uint8)
    frame[..., 0] = 255
    ((a, b),) = fit_centroids([frame], 1)
    assert (a, b) == pytest.approx((80.1, 67.2), abs=0.2)


def test_fit_centroids_wants_frames_and_colours():
    with pytest.raises(DataError):
        fit_centroids([])
    with pytest.raises(ConfigError):
        fit_centroids([random_frame()], 0)


def test_drop_channels_scales_the_others_and_leaves_the_original():
    images = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    found = drop_channels(images, (1,))
    assert_close(found[:, 1], torch.zeros(2, 4, 5))
    assert_close(found[:, (0, 2)], 1.5 * before[:, (0, 2)])
    assert_close(drop_channels(images, (0, 2))[:, 1], 3 * before[:, 1])
    assert torch.equal(drop_channels(images, ()), before)
    assert torch.equal(images, before)


@given(st.integers(1, 5).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
@settings(max_examples=30, deadline=None)
def test_drop_channels_keeps_the_sum_of_equal_channels(case):
    channels, dropped = case
    images = torch.ones(channels, 1, 1)
    if len(dropped) == channels:
        with pytest.raises(ConfigError):
            drop_channels(images, dropped)
    else:
        assert drop_channels(images, dropped).sum().item() == pytest.approx(channels)


def test_drop_channels_refuses_channels_that_do_not_exist():
    with pytest.raises(ConfigError):
        drop_channels(torch.ones(3, 2, 2), (3,))


@pytest.mark.parametrize("channel", [1, 2])
def test_lab_targets_hide_what_they_keep(channel):
    frames = [random_frame(seed) for seed in range(2)]
    images, colours = lab_targets(frames, channel)
    assert images.shape == (2, 3, 6, 9)
    assert colours.shape == (2, 1, 6, 9)
    assert float(images[:, channel].abs().max()) == 0
    for frame, image, colour in zip(frames, images, colours, strict=True):
        lab = cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
        normalised = (lab - (50, 0, 0)) / (50, 127, 127)
        assert np.abs(colour[0].numpy() - normalised[..., channel]).max() < 1e-5
        assert np.abs(image[0].numpy() - 1.5 * normalised[..., 0]).max() < 1e-5
        other = 3 - channel
        assert np.abs(image[other].numpy() - 1.5 * normalised[..., other]).max() < 1e-5


def test_lab_input_equals_masts(shared_dir):
    path = shared_dir / "oracle" / "mast" / "encoder.npz"
    if not path.is_file():
        pytest.skip(f"No reference output: {path} is missing.")
    stored = np.load(path)
    frames = list(stored["frames"])
    for channel in (1, 2):
        images, colours = lab_targets(frames, channel)
        expected = np.array(stored["image"], np.float32)
        assert np.abs(colours[:, 0].numpy() - expected[:, channel]).max() < 1e-5
        assert np.abs(images[:, 0].numpy() - 1.5 * expected[:, 0]).max() < 1e-5


def test_jitter_stays_in_range_near_and_leaves_the_original():
    image = torch.rand(3, 8, 9, generator=torch.Generator().manual_seed(0))
    before = image.clone()
    found = jitter(image, np.random.default_rng(0), 0.1)
    assert torch.equal(image, before)
    assert found.shape == image.shape
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert 0.01 < float((found - image).abs().mean()) < 0.25
    assert torch.equal(found, jitter(image, np.random.default_rng(0), 0.1))


def test_jitter_of_no_strength_changes_nothing():
    image = torch.rand(3, 8, 9, generator=torch.Generator().manual_seed(0))
    assert_close(jitter(image, np.random.default_rng(1), 0.0), image, atol=1e-5, rtol=0)


def test_jitter_of_grey_stays_grey():
    grey = torch.rand(1, 5, 5, generator=torch.Generator().manual_seed(0)).expand(3, 5, 5)
    found = jitter(grey.clone(), np.random.default_rng(2), 0.3)
    assert float((found - found.mean(0)).abs().max()) < 1e-5


def test_one_hot_and_resize_have_the_right_shapes():
    ids = torch.tensor([[[0, 2], [1, 1]]])
    assert one_hot(ids, 3).shape == (1, 3, 2, 2)
    assert torch.equal(one_hot(ids, 3).argmax(1), ids)
    assert resize_frame(random_frame(), 16).shape == (16, 16, 3)
