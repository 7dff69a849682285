import numpy as np
import pandas as pd
import pytest

from bench.errors import ConfigError, DataError
from bench.gap.curves import (
    COLUMNS,
    CorruptedImages,
    CorruptedVideos,
    corrupted_video,
    summarise,
)
from bench.gap.factors import FACTORS, SEVERITIES
from bench.video import Video
from datasets.synthetic import SyntheticClips, SyntheticStills

SMALL = {"height": 64, "width": 96}


@pytest.fixture(scope="module")
def stills() -> SyntheticStills:
    return SyntheticStills(images=3, **SMALL)


@pytest.fixture(scope="module")
def clips() -> SyntheticClips:
    return SyntheticClips(sequences=2, frames=4, **SMALL)


def without_masks(video: Video) -> Video:
    return Video(
        video.dataset, video.name, video.frame_names, video.size, video.load_frame,
        video.load_mask, (),
    )  # fmt: skip


# --- corrupted data ---------------------------------------------------------------------------


def test_images_are_corrupted_as_they_are_loaded(stills):
    factor = FACTORS["low_light"]
    found = CorruptedImages(stills, factor, 3, seed=4)
    assert len(found) == len(stills)
    order = [found[index] for index in (2, 0, 1)]
    for index, one in zip((2, 0, 1), order, strict=True):
        clean = stills[index]
        assert (one.name, one.categories) == (clean.name, clean.categories)
        np.testing.assert_array_equal(one.mask, clean.mask)
        assert one.image.mean() < 0.7 * clean.image.mean()
        np.testing.assert_array_equal(one.image, list(found)[index].image)
    assert (CorruptedImages(stills, factor, 3, seed=5)[0].image != found[0].image).any()
    np.testing.assert_array_equal(CorruptedImages(stills, factor, 0)[1].image, stills[1].image)
    with pytest.raises(ConfigError):
        CorruptedImages(stills, factor, 7)


def test_severities_share_their_draw(stills):
    """The same direction at every severity, and another one for another image."""
    angles = []
    for index in range(3):
        of_image = []
        for severity in (1, 2, 3):
            mask = CorruptedImages(stills, FACTORS["location"], severity)[index].mask
            ys, xs = np.nonzero(mask)
            of_image.append(np.arctan2(ys.mean() / 64 - 0.5, xs.mean() / 96 - 0.5))
        assert np.ptp(np.unwrap(of_image)) < 0.3
        angles.append(of_image[2])
    assert np.ptp(angles) > 0.3


def test_noise_changes_by_frame_and_blur_follows_the_motion(clips):
    name = clips.sequences()[0]
    clean = clips.video(name)
    dark = corrupted_video(clean, FACTORS["low_light"], 4)
    # A clip without motion would show the same noise twice if frames shared their draw.
    still = SyntheticClips(sequences=1, frames=3, redundancy=1.0, **SMALL)
    frozen = corrupted_video(next(iter(still)), FACTORS["low_light"], 4)
    assert (frozen.load_frame(0) != frozen.load_frame(1)).mean() > 0.3
    np.testing.assert_array_equal(dark.load_frame(2), dark.load_frame(2))
    # Without motion there is nothing to smear; a line kernel would.
    blurred = corrupted_video(next(iter(still)), FACTORS["motion_blur"], 5)
    difference = blurred.load_frame(1).astype(int) - next(iter(still)).load_frame(1)
    assert np.abs(difference).mean() < 0.5
    moving = corrupted_video(clean, FACTORS["motion_blur"], 5)
    for index in (0, 3):  # the last frame has no next one
        assert np.abs(moving.load_frame(index).astype(int) - clean.load_frame(index)).mean() > 0.5
    np.testing.assert_array_equal(moving.load_mask(1), clean.load_mask(1))


@pytest.mark.parametrize("name", ["location", "framing", "scale"])
def test_geometric_factors_move_all_frames_of_a_video_alike(clips, name):
    clean = clips.video(clips.sequences()[1])
    moved = corrupted_video(clean, FACTORS[name], 2)
    shifts = []
    for index in range(len(clean)):
        assert moved.load_frame(index).shape == clean.load_frame(index).shape
        top_left = [np.argwhere(one.load_mask(index) > 0).mean(0) for one in (clean, moved)]
        shifts.append(top_left[1] - top_left[0])
    assert np.ptp(shifts, axis=0).max() < 2.5
    assert moved.annotated == clean.annotated
    with pytest.raises(DataError, match="no mask with an object"):
        corrupted_video(without_masks(clean), FACTORS[name], 2).load_frame(0)


def test_photometric_factors_need_no_mask_and_severity_0_is_the_video(clips):
    clean = clips.video(clips.sequences()[0])
    assert corrupted_video(clean, FACTORS["scale"], 0) is clean
    assert corrupted_video(without_masks(clean), FACTORS["defocus"], 2).load_frame(0).any()
    found = CorruptedVideos(clips, FACTORS["compression"], 5)
    assert len(found) == 2
    assert found.sequences() == clips.sequences()
    assert [video.name for video in found] == clips.sequences()
    assert (next(iter(found)).load_frame(0) != next(iter(clips)).load_frame(0)).any()


# --- curves -----------------------------------------------------------------------------------


def sharpness(images) -> float:
    images = [images[index].image.astype(float) for index in range(len(images))]
    return float(np.mean([np.abs(np.diff(image, axis=1)).mean() for image in images]))


def test_scores_of_images_fall_with_severity(stills):
    found = [sharpness(CorruptedImages(stills, FACTORS["defocus"], s)) for s in SEVERITIES]
    assert (np.diff(found) < 0).all()


def test_and_those_of_videos(clips):
    found = [
        np.mean([v.load_frame(1).mean() for v in CorruptedVideos(clips, FACTORS["low_light"], s)])
        for s in SEVERITIES
    ]
    assert (np.diff(found) < 0).all()


def test_summary_by_hand():
    values = {"x": [0.8, 0.7, 0.6, 0.5, 0.4, 0.3], "y": [0.8, 0.8, 0.8, 0.4, 0.4, 0.1]}
    rows = [
        ("m", factor, severity, seed, value + (0.1 if seed else -0.1))
        for factor, curve in values.items()
        for severity, value in enumerate(curve)
        for seed in (0, 1)
    ]
    table = summarise(pd.DataFrame(rows, columns=list(COLUMNS))).set_index("factor")
    assert list(table.index) == ["x", "y", "all"]
    assert list(table["clean"]) == pytest.approx([0.8] * 3)
    assert list(table["mPC"]) == pytest.approx([0.5, 0.5, 0.5])
    assert list(table["rPC"]) == pytest.approx([0.625] * 3)
    rows = [("m", "x", severity, 0, 0.0) for severity in SEVERITIES]
    assert summarise(pd.DataFrame(rows, columns=list(COLUMNS)))["rPC"].isna().all()
    gap = pd.DataFrame([row for row in rows if row[2] != 3], columns=list(COLUMNS))
    with pytest.raises(DataError, match=r"m under x.*severity 3"):
        summarise(gap)
