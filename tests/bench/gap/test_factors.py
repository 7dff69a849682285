from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import ConfigError
from bench.gap.factors import (
    FACTORS,
    SEVERITIES,
    Geometric,
    Photometric,
    get_factor,
    motion_blur_along_flow,
)
from bench.gap.light import encode, linearise
from bench.gap.motion_blur import blur_along_flow, dis_flow, line_kernel
from bench.gap.placement import Placement, placed
from bench.gap.samples import sample_statistics, truncation
from datasets.synthetic.photos import photo

PHOTOMETRIC = [name for name, factor in FACTORS.items() if isinstance(factor, Photometric)]
GEOMETRIC = [name for name, factor in FACTORS.items() if isinstance(factor, Geometric)]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def disc(size=(120, 200), centre=(100, 60), radius=20, label=1) -> np.ndarray:
    ys, xs = np.mgrid[: size[0], : size[1]]
    return np.where(np.hypot(xs - centre[0], ys - centre[1]) <= radius, label, 0).astype(np.uint8)


@pytest.fixture(scope="module")
def cat() -> np.ndarray:
    return cv2.resize(photo("chelsea"), (300, 200), interpolation=cv2.INTER_AREA)


@st.composite
def samples(draw):
    height, width = draw(st.integers(12, 40)), draw(st.integers(12, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), np.uint8)
    top, left = rng.integers(0, height), rng.integers(0, width)
    mask[top : top + rng.integers(0, 15), left : left + rng.integers(0, 15)] = rng.integers(1, 4)
    return image, mask


@given(
    samples(), st.sampled_from(list(FACTORS)), st.sampled_from(SEVERITIES), st.integers(0, 2**31)
)
@settings(max_examples=150, deadline=None)
def test_a_factor_is_a_pure_function(sample, name, severity, seed):
    image, mask = sample
    before = image.copy(), mask.copy()
    out, moved = FACTORS[name](image, mask, severity, generator(seed))
    again, moved_again = FACTORS[name](image, mask, severity, generator(seed))
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])
    np.testing.assert_array_equal(out, again)
    np.testing.assert_array_equal(moved, moved_again)
    assert out.dtype == moved.dtype == np.uint8
    assert out.shape == image.shape
    assert moved.shape == mask.shape
    assert set(np.unique(moved)) <= set(np.unique(mask)) | {0}
    if severity == 0:
        np.testing.assert_array_equal(out, image)
        np.testing.assert_array_equal(moved, mask)
    if name in PHOTOMETRIC:
        assert moved is mask
    elif not mask.any():
        np.testing.assert_array_equal(out, image)


def test_the_global_generator_is_neither_used_nor_touched(cat):
    mask = disc(cat.shape[:2])
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = {name: one(cat, mask, 3, generator())[0] for name, one in FACTORS.items()}
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    for name, one in FACTORS.items():
        np.testing.assert_array_equal(one(cat, mask, 3, generator())[0], first[name])


@pytest.mark.parametrize("name", PHOTOMETRIC)
def test_damage_grows_with_severity_on_a_photograph(cat, name):
    errors = [
        np.square(FACTORS[name](cat, None, severity, generator(5))[0] - cat.astype(float)).mean()
        for severity in SEVERITIES
    ]
    assert errors[0] == 0
    assert all(a < b for a, b in pairwise(errors)), errors


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("motion_blur", ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))),
        ("defocus", (1, 2, 3, 4, 6)),
        ("compression", (25, 18, 15, 10, 7)),
        ("low_resolution", (0.6, 0.5, 0.4, 0.3, 0.25)),
        ("low_light", (0.5, 0.3, 0.2, 0.1, 0.05)),
    ],
)
def test_published_levels(name, levels):
    assert FACTORS[name].levels == levels


# --- photometric ------------------------------------------------------------------------------


def test_linear_light_and_back_is_exact():
    codes = np.arange(256, dtype=np.uint8)[:, None, None].repeat(3, 2)
    np.testing.assert_array_equal(encode(linearise(codes)), codes)
    assert linearise(np.full((1, 1, 3), 188, np.uint8))[0, 0, 0] == pytest.approx(0.5, abs=0.01)


def test_line_kernel_against_a_naive_one():
    """A horizontal line is a plain Gaussian; a tilted one has that Gaussian's moments."""
    kernel = line_kernel(10, 3.0, 0.0)
    weights = np.exp(-0.5 * (np.arange(-10, 11) / 3) ** 2)
    np.testing.assert_allclose(kernel[10], weights / weights.sum(), atol=1e-6)
    assert kernel.sum() == pytest.approx(1)
    assert np.delete(kernel, 10, 0).max() == 0
    for angle in (0.3, -0.7):
        kernel = line_kernel(15, 5.0, angle).astype(float)
        ys, xs = np.mgrid[-15:16, -15:16]
        assert abs((kernel * xs).sum()) < 1e-5
        assert abs((kernel * ys).sum()) < 1e-5
        along = xs * np.cos(angle) + ys * np.sin(angle)
        across = ys * np.cos(angle) - xs * np.sin(angle)
        assert (kernel * along**2).sum() == pytest.approx(25, rel=0.08)
        assert (kernel * across**2).sum() < 0.5


def test_low_light_has_the_mean_and_noise_of_photons():
    grey = np.full((200, 200, 3), 200, np.uint8)
    light = linearise(grey)[0, 0, 0]
    dark = linearise(FACTORS["low_light"](grey, None, 3, generator())[0])
    assert dark.mean() == pytest.approx(0.2 * light, rel=0.02)
    expected = np.sqrt(0.2 * light * 1000 + 2**2) / 1000
    assert dark.std() == pytest.approx(expected, rel=0.05)


def test_low_resolution_is_a_box_filter_at_whole_factors():
    image = generator().integers(0, 256, (40, 60, 3), dtype=np.uint8)
    boxes = image.reshape(20, 2, 30, 2, 3).mean((1, 3))
    expected = cv2.resize(np.rint(boxes).astype(np.uint8), (60, 40), interpolation=cv2.INTER_CUBIC)
    found = FACTORS["low_resolution"](image, None, 2, generator())[0]
    assert np.abs(found.astype(int) - expected).max() <= 2  # halves may round either way


# --- motion blur along flow -------------------------------------------------------------------


def square_at(x: float) -> np.ndarray:
    """A textured square over a textured background, float32 colours."""
    background = cv2.resize(photo("grass"), (160, 100), interpolation=cv2.INTER_AREA)
    texture = cv2.resize(photo("chelsea"), (40, 40), interpolation=cv2.INTER_AREA)
    matrix = np.float32([[1, 0, x], [0, 1, 30]])
    placed_texture = cv2.warpAffine(texture, matrix, (160, 100))
    alpha = cv2.warpAffine(np.ones((40, 40), np.float32), matrix, (160, 100))[..., None]
    return (background * (1 - alpha) + placed_texture * alpha).round().astype(np.uint8)


def test_blur_along_flow_is_the_average_of_true_sub_frames():
    """Against the rendered average; an average that leaves the outline in place is far worse."""
    image, exposure = square_at(60), 0.8
    flow = np.zeros((100, 160, 2), np.float32)
    flow[30:70, 60:100, 0] = 12
    times = exposure * ((np.arange(33) + 0.5) / 33 - 0.5)
    true = encode(np.mean([linearise(square_at(60 + 12 * t)) for t in times], axis=0))
    blurred = blur_along_flow(image, flow, exposure)
    ys, xs = np.mgrid[:100, :160].astype(np.float32)
    naive = np.mean(
        [
            linearise(
                cv2.remap(image, xs - float(t) * flow[..., 0], ys, cv2.INTER_LINEAR).astype(
                    np.uint8
                )
            )
            for t in times
        ],
        axis=0,
    )

    def error(found, where) -> float:
        return float(np.abs(found.astype(float) - true)[where].mean())

    ahead = np.s_[30:70, 100:105]
    assert error(blurred, np.s_[:]) < 0.25 * error(image, np.s_[:])
    assert error(blurred, ahead) < 0.5 * error(encode(naive), ahead)
    inside = np.s_[32:68, 68:92]
    assert error(blurred, inside) < 1.5
    np.testing.assert_array_equal(blurred[:25], image[:25])


def test_no_motion_is_no_blur_and_more_exposure_is_more(cat):
    still = np.zeros((*cat.shape[:2], 2), np.float32)
    np.testing.assert_array_equal(blur_along_flow(cat, still, 1.0), cat)
    moving = still + np.float32([9, 4])
    errors = [
        np.square(motion_blur_along_flow(cat, moving, severity) - cat.astype(float)).mean()
        for severity in SEVERITIES
    ]
    assert errors[0] == 0
    assert all(a < b for a, b in pairwise(errors)), errors


def test_dense_flow_finds_a_shift(cat):
    shifted = np.roll(cat, (2, 5), (0, 1))
    flow = dis_flow(cat, shifted)[30:-30, 30:-30]
    np.testing.assert_allclose(np.median(flow, axis=(0, 1)), (5, 2), atol=0.3)


# --- geometric --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_location_is_the_offset_of_the_centre(cat, seed):
    image, mask = cat[:120, :200], disc(centre=(70, 50), radius=8)
    angles = []
    for severity in SEVERITIES[1:]:
        _, moved = FACTORS["location"](image, mask, severity, generator(seed))
        found = sample_statistics(image, moved)
        if found.truncation > 0:  # at 40 % the object meets the frame in some directions
            continue
        assert found.offset == pytest.approx(0.08 * severity, abs=0.006)
        angles.append(np.arctan2(found.centroid_y - 0.5, found.centroid_x - 0.5))
    assert len(angles) >= 3
    assert np.abs(np.exp(1j * np.array(angles)) - np.exp(1j * angles[0])).max() < 0.12


@pytest.mark.parametrize("seed", range(6))
def test_framing_cuts_the_stated_share(cat, seed):
    image, mask = cat[:120, :200], disc(radius=30)
    cut = []
    for severity in SEVERITIES:
        out, moved = FACTORS["framing"](image, mask, severity, generator(seed))
        assert 1 - (moved > 0).sum() / (mask > 0).sum() == pytest.approx(0.12 * severity, abs=0.02)
        cut.append(truncation(moved > 0))
        if severity:  # pixels are moved, never resampled
            shift = [np.argwhere(a > 0) for a in (mask, moved)]
            assert {tuple(c) for c in out[moved > 0]} <= {tuple(c) for c in image[mask > 0]}
            assert len(shift[1]) < len(shift[0])
    assert all(a < b for a, b in pairwise(cut)), cut


def test_scale_is_the_height_of_the_object_about_its_centre(cat):
    image, mask = cat[:120, :200], disc(radius=20)
    for severity, height in enumerate(FACTORS["scale"].levels, start=1):
        _, moved = FACTORS["scale"](image, mask, severity, generator())
        found = sample_statistics(image, moved)
        assert found.height == pytest.approx(height, abs=1.5 / 120)
        assert (found.centroid_x, found.centroid_y) == pytest.approx((0.5025, 0.504), abs=0.01)


@pytest.mark.parametrize("name", GEOMETRIC)
def test_image_and_mask_move_together_and_leave_no_copy(name):
    """A red object on grey: whatever is red is in the mask, and the mask is red."""
    mask = disc(centre=(80, 50), radius=18, label=2)
    image = np.where(mask[..., None] > 0, np.uint8([220, 20, 20]), np.uint8([90, 90, 90]))
    image = image.astype(np.uint8)
    for severity in SEVERITIES:
        for seed in range(4):
            out, moved = FACTORS[name](image, mask, severity, generator(seed))
            red = out[..., 0].astype(int) - out[..., 1] > 100
            inside = cv2.erode((moved == 2).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
            near = cv2.dilate((moved == 2).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
            assert red[inside].all()
            assert not red[~near].any()


def test_placed_against_a_naive_warp():
    """Every pixel looked up alone, by nearest neighbour."""
    mask = disc(size=(40, 60), centre=(25, 18), radius=9, label=3)
    image = mask[..., None].repeat(3, 2) * np.uint8(60)
    for placement in (Placement(1, 7, -5), Placement(1.7, -20.2, 3.3), Placement(0.5, 11.4, 6.6)):
        naive = np.zeros_like(mask)
        for y in range(40):
            for x in range(60):
                u = int(np.floor((x + 0.5 - placement.x) / placement.scale))
                v = int(np.floor((y + 0.5 - placement.y) / placement.scale))
                if 0 <= u < 60 and 0 <= v < 40:
                    naive[y, x] = mask[v, u]
        _, moved = placed(image, mask, placement)
        assert (moved != naive).mean() < 0.01  # ties at pixel borders


# --- errors -----------------------------------------------------------------------------------


def test_errors_name_what_is_wrong(cat):
    with pytest.raises(ConfigError, match="severity"):
        FACTORS["defocus"](cat, None, 6, generator())
    with pytest.raises(ConfigError, match="severity"):
        motion_blur_along_flow(cat, np.zeros((*cat.shape[:2], 2), np.float32), -1)
    with pytest.raises(ConfigError, match="without a mask"):
        FACTORS["scale"](cat, None, 1, generator())
    with pytest.raises(ConfigError, match="motion_blur"):
        get_factor("fog")
    assert get_factor("scale") is FACTORS["scale"]
