"""Data of an adaptation: steps of both domains, controls, augmentation, camera paths."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from bench.errors import ConfigError
from methods.adversarial.adversary_settings import AlignmentSettings
from methods.adversarial.augment import (
    Clip,
    augment,
    corrupt,
    draw_video_like,
    line_kernel,
    recolour,
)
from methods.adversarial.data import IMAGE, NEITHER, VIDEO, HeldOut, Steps, draw
from methods.adversarial.domains import labelled_videos, needed, open_domains, split, used_videos
from methods.adversarial.material import Memory, Stills, Videos, labels_of, sharpness
from methods.adversarial.settings import (
    AdaptationSettings,
    AugmentationSettings,
    DomainSettings,
    NetworkSettings,
)
from methods.camera_path import STEADY, camera_path, follow
from tests.methods.adversarial.shapes import FRAMES, ShapeImages, ShapeVideos

SETTINGS = AdaptationSettings(
    alignments=(AlignmentSettings(tap="enc4"),),
    images=4,
    clips=3,
    held_out=4,
    augmentation=AugmentationSettings(crop=32),
)


def steps_of(
    settings: AdaptationSettings, data: Sequence[object], time: str = "none", seed: int = 0
) -> Steps:
    network = NetworkSettings(time=time)
    domains = open_domains(network, settings, data)
    return Steps(domains.images, domains.targets, settings, domains.counts, seed)


def with_domains(**changes: object) -> AdaptationSettings:
    return SETTINGS.model_copy(update={"domains": DomainSettings(**changes)})


def picture(height: int = 40, width: int = 60) -> Clip:
    """Colour and label say the same: red is foreground."""
    y, x = np.mgrid[:height, :width]
    mask = ((y - 18) ** 2 + (x - 33) ** 2 < 120).astype(np.uint8)
    image = np.stack([mask * 255, 255 - mask * 255, np.zeros_like(mask)], -1)
    return Clip([image, image], [np.stack([mask, mask], -1)] * 2, True)


# ------------------------------------------------------------------------------- augmentation


def test_labels_go_where_pixels_go() -> None:
    settings = AugmentationSettings(crop=48, colour=0.0, scale=(0.2, 1.0))
    random = np.random.default_rng(0)
    agree = []
    for _ in range(40):
        made = augment(picture(), random, settings)
        frame, label = made.frames[0], made.labels[0]
        agree.append(((frame[..., 0] > 127) == (label[..., 0] > 0)).mean())
        assert frame.shape == (48, 48, 3)
        assert (label[..., 0] == label[..., 1]).all()
    assert min(agree) > 0.95


def test_frames_of_a_clip_share_what_is_drawn() -> None:
    made = augment(picture(), np.random.default_rng(3), AugmentationSettings(crop=32))
    assert np.array_equal(made.frames[0], made.frames[1])
    assert np.array_equal(made.labels[0], made.labels[1])


def test_recolour_by_ones_changes_nothing() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    assert np.array_equal(recolour([frame], 1, 1, 1)[0], frame)
    grey = recolour([frame], 1, 1, 0)[0]
    assert np.ptp(grey.astype(int), axis=2).max() == 0


@pytest.mark.parametrize("angle", [0.0, 0.7, 2.0])
def test_motion_blur_is_a_line(angle: float) -> None:
    """A line of length L has variance L^2 / 12 along itself and almost none across."""
    kernel = line_kernel(9.0, angle)
    assert kernel.sum() == pytest.approx(1)
    half = len(kernel) // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    along = x * np.cos(angle) + y * np.sin(angle)
    across = -x * np.sin(angle) + y * np.cos(angle)
    assert (kernel * along).sum() == pytest.approx(0, abs=1e-5)
    assert (kernel * along**2).sum() == pytest.approx(81 / 12, rel=0.15)
    assert (kernel * across**2).sum() < 0.5


def test_motion_blur_of_any_length_stays_inside_its_square() -> None:
    """Lengths just below an even number once reached past the edge."""
    for length in np.linspace(2, 20, 400):
        for angle in (0.0, 1e-3, 0.7, np.pi / 2):
            kernel = line_kernel(float(length), angle)
            assert kernel.sum() == pytest.approx(1, abs=1e-5)
            # A line looks the same from both of its ends.
            assert np.allclose(kernel, kernel[::-1, ::-1], atol=1e-6)


def test_video_like_corruptions_come_as_often_as_asked_for() -> None:
    random = np.random.default_rng(0)
    drawn = [draw_video_like(random, 0.3, 64) for _ in range(1000)]
    for name in ("low_light", "low_resolution", "compression"):
        share = np.mean([getattr(one.factors, name) > 0 for one in drawn])
        assert share == pytest.approx(0.3, abs=0.06)
    assert np.mean([one.blur > 0 for one in drawn]) == pytest.approx(0.3, abs=0.06)
    frame = picture().frames[0]
    never = draw_video_like(random, 0.0, 64)
    assert np.array_equal(corrupt(frame, never, random), frame)


def test_video_like_leaves_sharpness_behind() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (48, 48, 3)).astype(np.uint8)
    always = AugmentationSettings(crop=48, colour=0.0, scale=(1.0, 1.0))
    clip = Clip([frame], [np.zeros((48, 48, 2), np.uint8)], True)
    plain = augment(clip, np.random.default_rng(1), always)
    worse = augment(clip, np.random.default_rng(1), always, video_like=1.0)
    assert sharpness(worse.frames[0]) < 0.5 * sharpness(plain.frames[0])


def test_only_images_are_made_video_like() -> None:
    plain = steps_of(SETTINGS, [ShapeImages(), ShapeVideos()])[0]
    settings = SETTINGS.model_copy(
        update={"augmentation": AugmentationSettings(crop=32, video_like=1.0)}
    )
    worse = steps_of(settings, [ShapeImages(), ShapeVideos()])[0]
    assert torch.equal(plain.clips.frames, worse.clips.frames)
    assert not torch.equal(plain.images.frames[0], worse.images.frames[0])


def test_both_domains_have_one_distribution_of_crops() -> None:
    """The same pictures as both domains: quantiles of what comes out agree."""
    settings = with_domains(pairing="second_images", clip_frames=1).model_copy(
        update={"images": 8, "clips": 8}
    )
    steps = steps_of(settings, [ShapeImages(), ShapeImages()])
    means = [[], []]
    for number in range(40):
        for values, part in zip(means, steps[number], strict=True):
            values += part.frames.float().mean((1, 2, 3, 4)).tolist()
    first, second = (np.quantile(values, [0.1, 0.5, 0.9]) for values in means)
    # The standard error of these quantiles over 320 pictures is below 1.5 grey levels.
    assert np.abs(first - second).max() < 5


# --------------------------------------------------------------------------------- camera path


def test_camera_path_is_within_its_limits_and_of_constant_speed() -> None:
    random = np.random.default_rng(0)
    paths = np.stack([camera_path(random, 4) for _ in range(200)])
    assert paths[..., 0].min() >= STEADY.zoom[0]
    assert paths[..., 0].max() <= STEADY.zoom[1]
    assert np.abs(paths[..., 1:3]).max() <= STEADY.shift
    assert np.abs(paths[..., 3]).max() <= STEADY.rotation
    assert np.allclose(np.diff(paths, axis=1, n=2), 0)
    assert np.abs(paths[..., 3]).max() > 0.9 * STEADY.rotation


def test_camera_path_moves_labels_with_pixels() -> None:
    clip = picture()
    image, labels = clip.frames[0], clip.labels[0]
    still = np.array([[1.0, 0, 0, 0]])
    frames, warped = follow(image, labels, still)
    assert np.array_equal(frames[0], image)
    assert np.array_equal(warped[0], labels)
    frames, warped = follow(image, labels, camera_path(np.random.default_rng(1), 5))
    for frame, label in zip(frames, warped, strict=True):
        assert ((frame[..., 0] > 127) == (label[..., 0] > 0)).mean() > 0.97
        assert frame.sum(-1).min() > 200  # no black border
    assert not np.array_equal(frames[0], frames[-1])


def test_images_become_clips_for_networks_over_time() -> None:
    data = [ShapeImages(), ShapeVideos()]
    shapes = {}
    for how in ("camera_path", "copies", "single"):
        step = steps_of(with_domains(images_as=how, clip_frames=3), data, time="attention")[0]
        shapes[how] = step.images.frames.shape[:2]
        same = (step.images.frames[:, 0] == step.images.frames[:, -1]).all()
        assert bool(same) == (how != "camera_path")
        assert step.images.foreground.shape[:2] == shapes[how]
    assert shapes == {"camera_path": (4, 3), "copies": (4, 3), "single": (4, 1)}
    assert steps_of(with_domains(clip_frames=3), data)[0].images.frames.shape[:2] == (4, 1)


# -------------------------------------------------------------------------------------- labels


def test_labels_by_pixel() -> None:
    mask = np.array([[0, 1, 2], [3, 255, 0]], np.uint8)
    made = labels_of(mask, {1: "cat", 2: "dog", 3: "cow"}, ("dog", "cat"))
    for (row, column), value in np.ndenumerate(mask):
        foreground, name = made[row, column]
        if value == 255:
            assert (foreground, name) == (255, 255)
        else:
            assert foreground == (value > 0)
            assert name == {0: 0, 1: 2, 2: 1, 3: 0}[int(value)]


def test_objects_without_categories_have_no_class() -> None:
    mask = np.array([[0, 1]], np.uint8)
    assert labels_of(mask, {}, ("dog",))[..., 1].tolist() == [[255, 255]]
    assert labels_of(np.zeros((1, 2), np.uint8), {}, ("dog",))[..., 1].tolist() == [[0, 0]]


# --------------------------------------------------------------------------------------- steps


def test_a_step_depends_on_seed_and_number_alone() -> None:
    data = [ShapeImages(), ShapeVideos()]
    first, second = steps_of(SETTINGS, data), steps_of(SETTINGS, data)
    one, _, again = first[5], second[2], second[5]
    for part, other in zip(one, again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(part, other, strict=True))
    assert not torch.equal(one.images.frames, steps_of(SETTINGS, data, seed=1)[5].images.frames)
    assert not torch.equal(one.images.frames, first[6].images.frames)


def test_images_are_the_same_with_and_without_clips() -> None:
    data = [ShapeImages(), ShapeVideos()]
    source = SETTINGS.model_copy(update={"alignments": ()})
    assert needed(source) == (4, 0)
    alone, both = steps_of(source, data)[3], steps_of(SETTINGS, data)[3]
    assert torch.equal(alone.images.frames, both.images.frames)
    assert len(alone.clips.frames) == 0
    assert both.clips.frames.shape == (3, 2, 3, 32, 32)


def test_videos_starts_and_strides_are_drawn_uniformly() -> None:
    seen: list[tuple[int, int]] = []

    class Told(Videos):
        def frame(self, video: int, number: int):
            seen.append((video, number))
            return super().frame(video, number)

    videos = list(ShapeVideos())
    clips = Told(videos, [], DomainSettings(clip_stride=(1, 3)), Memory(None, 1 << 22))
    random = np.random.default_rng(0)
    for _ in range(300):
        draw(clips, [VIDEO] * 2, False, 0, random)
    chosen = np.array(seen).reshape(-1, 2, 2)
    strides = chosen[:, 1, 1] - chosen[:, 0, 1]
    assert np.bincount(strides, minlength=4)[1:] == pytest.approx([200] * 3, abs=45)
    assert np.bincount(chosen[:, 0, 0]) == pytest.approx([100] * 6, abs=35)
    starts = chosen[strides == 1][:, 0, 1]
    assert np.bincount(starts, minlength=FRAMES - 1) == pytest.approx([200 / 7] * 7, abs=20)


@pytest.mark.parametrize("sampling", ["uniform", "length"])
@pytest.mark.parametrize("pairing", ["image_video", "video_video"])
def test_long_videos_may_be_drawn_more_often(sampling: str, pairing: str) -> None:
    settings = with_domains(video_sampling=sampling, pairing=pairing, clip_frames=1)
    settings = settings.model_copy(update={"clips": 2})
    steps = steps_of(settings, [ShapeImages(), ShapeVideos()])
    lengths = [1, 2, 3, 4, 5, 6]
    seen = dict.fromkeys(lengths, 0)

    class Cut(Videos):
        def clip(self, number: int, random: np.random.Generator) -> Clip:
            seen[len(self.videos[number])] += 1
            return super().clip(number, random)

    videos = [
        dataclasses.replace(video, frame_names=video.frame_names[:length], annotated=())
        for video, length in zip(ShapeVideos(), lengths, strict=True)
    ]
    targets = Cut(videos, [], settings.domains, Memory(None, 1 << 22))
    steps = Steps(steps.images, targets, settings, (2, 2), 0)
    for number in range(200):
        steps[number]
    found = [count / 400 for count in seen.values()]
    if pairing == "image_video":
        # Two different ones of six: the first as frequent as it is long, the second of the rest.
        shares = np.array(lengths) / 21 if sampling == "length" else np.full(6, 1 / 6)
        second = [
            sum(shares[a] * shares[b] / (1 - shares[a]) for a in range(6) if a != b)
            for b in range(6)
        ]
        assert found == pytest.approx((shares + second) / 2, abs=0.06)
    else:
        halves = np.random.default_rng(settings.split_seed).permutation(6).reshape(2, 3)
        for half in halves:
            own = np.array(lengths)[half] if sampling == "length" else np.ones(3)
            wanted = own / own.sum() / 2
            assert [found[number] for number in half] == pytest.approx(wanted, abs=0.06)


def test_masks_of_unlabelled_videos_are_never_read() -> None:
    videos = ShapeVideos()
    steps = steps_of(SETTINGS, [ShapeImages(), videos])
    for number in range(20):
        assert (steps[number].clips.foreground == 255).all()
        assert not steps[number].clips.supervised.any()
    assert videos.masks_read == []


def test_only_masks_of_the_labelled_videos_are_read() -> None:
    videos = ShapeVideos()
    settings = with_domains(labelled_videos=0.4)
    allowed = {f"clip{number}" for number in labelled_videos(6, settings)}
    assert len(allowed) == 3
    steps = steps_of(settings, [ShapeImages(), videos])
    for number in range(20):
        clips = steps[number].clips
        known = (clips.foreground != 255).flatten(1).any(1)
        assert torch.equal(known, clips.supervised)
    assert {name for name, _ in videos.masks_read} == allowed


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.01, 1), (0.07, 7), (0.1, 10), (1, 100)])
def test_share_of_labelled_videos(share: float, count: int) -> None:
    chosen = labelled_videos(100, with_domains(labelled_videos=share))
    assert len(chosen) == count
    assert set(chosen) <= set(labelled_videos(100, with_domains(labelled_videos=1.0)))
    assert set(chosen) <= set(labelled_videos(100, with_domains(labelled_videos=max(share, 0.1))))


@pytest.mark.parametrize(("share", "count"), [(0.01, 1), (0.1, 10), (0.25, 25), (1, 100)])
def test_share_of_used_videos(share: float, count: int) -> None:
    chosen = used_videos(100, with_domains(used_videos=share))
    assert len(chosen) == count
    assert chosen == sorted(chosen)
    for larger in (share, max(share, 0.5), 1.0):
        assert set(chosen) <= set(used_videos(100, with_domains(used_videos=larger)))
    assert used_videos(100, SETTINGS) == list(range(100))


def test_labelled_videos_are_the_same_among_those_used() -> None:
    all_used = labelled_videos(100, with_domains(labelled_videos=0.1))
    settings = with_domains(labelled_videos=0.1, used_videos=0.3)
    used = used_videos(100, settings)
    assert [used[number] for number in labelled_videos(100, settings)] == all_used
    with pytest.raises(ValidationError, match="above used_videos"):
        DomainSettings(labelled_videos=0.5, used_videos=0.4)


def test_other_videos_are_never_looked_at() -> None:
    videos = ShapeVideos()
    looked: set[str] = set()
    picture = videos.picture

    def counted(sequence: str, frame: int) -> tuple[np.ndarray, np.ndarray]:
        looked.add(sequence)
        return picture(sequence, frame)

    videos.picture = counted  # type: ignore[method-assign]
    settings = with_domains(used_videos=0.5, labelled_videos=0.3)
    steps = steps_of(settings, [ShapeImages(), videos])
    for number in range(20):
        steps[number]
    names = videos.sequences()
    assert looked == {names[number] for number in used_videos(6, settings)}
    assert len(looked) == 3
    masks = {name for name, _ in videos.masks_read}
    assert masks == {
        names[number] for number in labelled_videos(6, with_domains(labelled_videos=0.3))
    }


def test_oracle_learns_from_video_alone() -> None:
    settings = with_domains(labelled_videos=1.0, use_image_labels=False).model_copy(
        update={"alignments": ()}
    )
    step = steps_of(settings, [ShapeImages(), ShapeVideos()])[0]
    assert len(step.images.frames) == 0
    assert step.clips.supervised.all()
    assert set(step.clips.foreground.unique().tolist()) == {0, 1}


def test_held_out_images_are_never_trained_on() -> None:
    train, held_out = split(24, SETTINGS)
    assert len(held_out) == 4
    assert sorted(train + held_out) == list(range(24))
    domains = open_domains(NetworkSettings(), SETTINGS, [ShapeImages(), ShapeVideos()])
    assert set(domains.images.numbers).isdisjoint(domains.held_out.numbers)
    batches = HeldOut(domains.held_out, 32)
    assert [len(batches[number].frames) for number in range(len(batches))] == [4]
    with pytest.raises(ConfigError, match="held_out"):
        split(4, SETTINGS)


# ------------------------------------------------------------------------------------ controls


def test_real_domains() -> None:
    step = steps_of(SETTINGS, [ShapeImages(), ShapeVideos()])[0]
    assert step.images.domains.tolist() == [IMAGE] * 4
    assert step.clips.domains.tolist() == [VIDEO] * 3
    assert step.images.supervised.all()


def test_shuffled_domains_tell_nothing() -> None:
    steps = steps_of(with_domains(pairing="shuffled"), [ShapeImages(), ShapeVideos()])
    images = torch.stack([steps[number].images.domains for number in range(60)]).float()
    assert (images.sum(1) == 2).all()
    assert images.mean(0).tolist() == pytest.approx([0.5] * 4, abs=0.2)
    real = steps_of(SETTINGS, [ShapeImages(), ShapeVideos()])
    assert torch.equal(steps[7].images.frames, real[7].images.frames)
    assert torch.equal(steps[7].clips.frames, real[7].clips.frames)


@pytest.mark.parametrize(("pairing", "part"), [("image_image", 0), ("video_video", 1)])
def test_halves_of_one_domain(pairing: str, part: int) -> None:
    steps = steps_of(with_domains(pairing=pairing), [ShapeImages(), ShapeVideos()])
    assert sorted(set(steps[0][part].domains.tolist())) == [IMAGE, VIDEO]
    assert set(steps[0][1 - part].domains.tolist()) <= {NEITHER}
    assert steps[0].images.supervised.all()
    assert len(steps[0].images.frames) == 4

    taken: dict[int, set[int]] = {IMAGE: set(), VIDEO: set()}

    class Numbers:
        def __len__(self) -> int:
            return 9

        def clip(self, number: int, random: np.random.Generator) -> Clip:
            return Clip([], [np.array(number)], True)

    random = np.random.default_rng(0)
    for _ in range(30):
        domains = [0, 1, 0]
        for domain, clip in zip(domains, draw(Numbers(), domains, True, 0, random), strict=True):
            taken[domain].add(int(clip.labels[0]))
    assert taken[IMAGE].isdisjoint(taken[VIDEO])
    assert taken[IMAGE] | taken[VIDEO] == set(range(9))


def test_second_images_are_unlabelled_targets() -> None:
    settings = with_domains(pairing="second_images")
    step = steps_of(settings, [ShapeImages(), ShapeImages(count=9)])[0]
    assert step.clips.frames.shape[:2] == (6, 1)
    assert (step.clips.foreground == 255).all()
    assert step.clips.domains.tolist() == [VIDEO] * 6
    with pytest.raises(ConfigError, match="second_images"):
        open_domains(NetworkSettings(), settings, [ShapeImages(), ShapeVideos()])


def test_sharpest_frame() -> None:
    videos = ShapeVideos(count=3)
    steps = steps_of(with_domains(pairing="sharpest"), [ShapeImages(), videos])
    step = steps[0]
    assert step.clips.frames.shape[:2] == (6, 1)
    for number, sequence in enumerate(videos.sequences()):
        scores = [sharpness(videos.picture(sequence, frame)[0]) for frame in range(FRAMES)]
        steps.targets.clip(number, np.random.default_rng(0))
        assert steps.targets._sharpest[number] == int(np.argmax(scores))


@pytest.mark.parametrize("data", [[ShapeImages()], [ShapeVideos()]])
def test_missing_data_is_named(data: list[object]) -> None:
    with pytest.raises(ConfigError, match="davis16-train"):
        open_domains(NetworkSettings(), SETTINGS, data)


# -------------------------------------------------------------------------------------- memory


def test_memory_keeps_what_fits() -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    labels = np.zeros((20, 30, 2), np.uint8)
    decoded = []

    def get(memory: Memory, number: int) -> None:
        def decode() -> tuple[np.ndarray, np.ndarray]:
            decoded.append(number)
            return image, labels

        memory.get(("image", number, 0), decode)

    memory = Memory(None, 2 * 20 * 30 * 5)
    for number in (0, 1, 0, 2, 0, 1):
        get(memory, number)
    assert decoded == [0, 1, 2, 1]  # 2 pushed out 1, which was used longest ago
    nothing = Memory(None, 0)
    for _ in range(2):
        get(nothing, 7)
    assert decoded[-2:] == [7, 7]


def test_memory_scales_labels_with_pictures() -> None:
    clip = picture()
    memory = Memory(20, 1 << 20)
    image, labels = memory.get(("image", 0, 0), lambda: (clip.frames[0], clip.labels[0]))
    assert image.shape == (20, 30, 3)
    assert labels is not None
    assert labels.shape == (20, 30, 2)
    assert ((image[..., 0] > 127) == (labels[..., 0] > 0)).mean() > 0.95


def test_unlabelled_stills_say_nothing() -> None:
    images = ShapeImages()
    stills = Stills(images, range(3), DomainSettings(), 1, Memory(None, 1 << 20), labelled=False)
    clip = stills.clip(0, np.random.default_rng(0))
    assert not clip.supervised
    assert (clip.labels[0] == 255).all()
